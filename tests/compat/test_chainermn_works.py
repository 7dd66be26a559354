"""ChainerMN with the fixes of pfdet.compat: two ranks against one rank with the same batch."""


def test_training_on_two_ranks_equals_training_on_one(mpiexec):
    # The only communicator of ChainerMN that supports CPU arrays.
    result = mpiexec(
        2,
        """
        import pfdet.compat

        import chainer
        import chainer.functions as F
        import chainer.links as L
        import chainermn
        import numpy as np
        from chainermn.links import MultiNodeBatchNormalization

        comm = chainermn.create_communicator('naive')
        assert comm.size == 2

        def network(normalization):
            convolution = L.Convolution2D(3, 4, 3, pad=1, nobias=True)
            rng = np.random.RandomState(0)
            convolution.W.array[:] = rng.standard_normal(convolution.W.shape) * .2
            return chainer.Sequential(convolution, normalization)

        x = np.random.RandomState(1).standard_normal((4, 3, 5, 5)).astype(np.float32)
        x *= np.arange(1, 5, dtype=np.float32)[:, None, None, None]
        local = slice(comm.rank * 2, comm.rank * 2 + 2)

        whole = network(L.BatchNormalization(4))
        half = network(MultiNodeBatchNormalization(4, comm))
        optimizers = [
            chainer.optimizers.CorrectedMomentumSGD(.1).setup(whole),
            chainermn.create_multi_node_optimizer(
                chainer.optimizers.CorrectedMomentumSGD(.1), comm).setup(half)]
        for step in range(3):
            y_whole, y_half = whole(x), half(x[local])
            assert y_half.dtype == np.float32
            np.testing.assert_allclose(y_half.array, y_whole.array[local], atol=1e-4)
            for optimizer, model, y in zip(optimizers, (whole, half), (y_whole, y_half)):
                model.cleargrads()
                # The first update of a multi-node optimizer only broadcasts the parameters.
                loss = F.sum(F.relu(y) ** 3) / len(y) / 25
                loss.backward()
                if step or model is half:
                    optimizer.update()
            if step == 0:
                initial = whole[0].W.array.copy()
                np.testing.assert_array_equal(half[0].W.array, initial)
        assert abs(whole[0].W.array - initial).max() > .01
        for p, q in zip(half.params(), whole.params()):
            assert p.dtype == np.float32
            np.testing.assert_allclose(p.array, q.array, atol=1e-4)
        n_equal = comm.gather_obj(1)
        if comm.rank == 0:
            print(sum(n_equal), 'equal')
    """,
    )
    assert result.stdout == '2 equal\n'


def test_multi_node_iterator(mpiexec):
    result = mpiexec(
        2,
        """
        import pfdet.compat

        import chainer
        import chainermn
        import numpy as np

        comm = chainermn.create_communicator('naive')
        data = np.arange(12, dtype=np.float32) + 100 * comm.rank
        iterator = chainermn.iterators.create_multi_node_iterator(
            chainer.iterators.SerialIterator(data, 4, shuffle=True, repeat=False), comm)
        seen = [sorted(batch) for batch in iterator]
        assert sorted(sum(seen, [])) == list(range(12)), seen
        seen = comm.gather_obj(seen)
        if comm.rank == 0:
            print('same' if seen[0] == seen[1] else seen)
    """,
        timeout=600,
    )
    assert result.stdout == 'same\n'


def test_a_failing_rank_ends_the_others(mpiexec):
    error = ''
    # On a busy machine the launcher may exit before it forwards the ranks' output.
    for _ in range(3):
        result = mpiexec(
            2,
            """
            import pfdet.compat

            import chainermn
            import chainermn.global_except_hook

            chainermn.global_except_hook.add_hook()
            comm = chainermn.create_communicator('naive')
            if comm.rank == 1:
                raise RuntimeError('on purpose')
            comm.bcast_obj(None, root=1)
        """,
            check=False,
            timeout=600,
        )
        assert result.returncode != 0
        error += result.stderr
        if error:
            break
    assert 'on purpose' in error
