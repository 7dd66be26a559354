"""Tests of error reporting by commands, on one rank and on several."""

import os

import pytest

from pfdet.errors import InputError, run_command


@pytest.mark.parametrize('returned, status', [(None, 0), (0, 0), (3, 3)])
def test_run_command_exits_with_the_status_of_main(returned, status):
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: returned)
    assert exit_.value.code == status


def test_input_error_is_one_line_and_status_2(capsys):
    def main():
        raise InputError('boxes.csv line 3: no column XMin,\n    expected a number in [0, 1]')

    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == 2
    output = capsys.readouterr()
    assert output.out == ''
    assert output.err == ('error: boxes.csv line 3: no column XMin, expected a number in [0, 1]\n')


@pytest.mark.parametrize(
    'work, line',
    [
        (lambda p: (p / 'none').read_text(), '{}/none: No such file or directory'),
        (lambda p: p.write_text('x'), '{}: Is a directory'),
        (lambda p: (p / 'file' / 'x').mkdir(), '{}/file/x: Not a directory'),
        (lambda p: (p / ('n' * 300)).touch(), '{}/' + 'n' * 300 + ': File name too long'),
        (lambda p: (p / 'file').mkdir(), '{}/file: File exists'),
        (lambda p: os.rename(p, p / 'x'), '{0} -> {0}/x: Invalid argument'),
        (lambda p: open('/dev/full', 'w').write('x' * 100_000), 'No space left on device'),
    ],
)
def test_errors_of_files_are_one_line(work, line, tmp_path, capsys):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: work(tmp_path))
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f'error: {line.format(tmp_path)}\n'


@pytest.mark.parametrize(
    'error', [OSError('no file'), ConnectionResetError(104, 'reset'), OSError(5, 'error', 7)]
)
def test_other_system_errors_keep_their_traceback(error):
    def main():
        raise error

    with pytest.raises(OSError):
        run_command(main)


def test_other_exceptions_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_input_error_on_one_rank_ends_all_ranks(mpiexec):
    # Otherwise rank 0 would wait at the barrier until the time limit.
    result = mpiexec(
        2,
        """
        from pfdet.errors import InputError, run_command

        def main():
            from mpi4py import MPI
            if MPI.COMM_WORLD.rank == 1:
                raise InputError('images/x.jpg: truncated, expected a JPEG')
            MPI.COMM_WORLD.Barrier()

        run_command(main)
    """,
        check=False,
        timeout=600,
    )
    assert result.returncode == 2
    assert 'error: images/x.jpg: truncated, expected a JPEG' in result.stderr
    assert 'Traceback' not in result.stderr


def test_exception_on_one_rank_ends_all_ranks_with_its_traceback(mpiexec):
    program = """
        import time
        from mpi4py import MPI
        from pfdet.errors import end_all_ranks_on_exception
        end_all_ranks_on_exception()
        if MPI.COMM_WORLD.rank == 1:
            raise RuntimeError('of rank 1')
        time.sleep(3600)
    """
    done = mpiexec(2, program, timeout=600, check=False)
    assert done.returncode == 1
    assert 'Traceback' in done.stderr and 'RuntimeError: of rank 1' in done.stderr


def test_error_of_all_ranks_is_printed_once(mpiexec):
    """Also if MPI has not been initialized yet."""
    for start in '', 'import mpi4py.MPI':
        result = mpiexec(
            3,
            f"""
            from pfdet.errors import InputError, run_command

            def main():
                {start}
                raise InputError('--recipe none: no such recipe')

            run_command(main)
        """,
            check=False,
            timeout=600,
        )
        assert result.returncode == 2
        assert result.stderr.count('error: ') == 1, result.stderr


def test_rank_that_fails_before_mpi_starts_ends_the_others(mpiexec):
    result = mpiexec(
        2,
        """
        import os
        from pfdet.errors import run_command

        def main():
            if os.environ['PMI_RANK'] == '1':
                raise ImportError('of rank 1')
            import mpi4py.MPI
            mpi4py.MPI.COMM_WORLD.Barrier()

        run_command(main)
    """,
        check=False,
        timeout=600,
    )
    assert result.returncode == 1
    assert 'Traceback' in result.stderr and 'ImportError: of rank 1' in result.stderr


def test_rank_that_fails_does_not_wait_for_one_that_is_far_from_starting_mpi(mpiexec):
    result = mpiexec(
        3,
        """
        import os
        import time
        from pfdet.errors import InputError, run_command

        def main():
            if os.environ['PMI_RANK'] == '2':
                raise InputError('of rank 2')
            time.sleep(3600)

        run_command(main)
    """,
        check=False,
        timeout=600,
    )
    assert result.returncode == 2
    assert result.stderr == 'error: of rank 2\n'


def test_only_ranks_themselves_talk_to_their_launcher(mpiexec):
    """A process that a rank has started has the same variables, but another file of that number."""
    result = mpiexec(
        1,
        """
        import os
        import subprocess
        import sys

        from pfdet.errors import launcher_socket

        number = int(os.environ['PMI_FD'])
        assert launcher_socket() == number
        ask = 'from pfdet.errors import launcher_socket; print(launcher_socket())'
        child = [sys.executable, '-c', ask]

        # Neither the file nor another socket
        print(subprocess.run(child, capture_output=True, text=True).stdout.strip())
        other = 'import os, socket; s = socket.socketpair()[0]; os.dup2(s.fileno(), %d); ' % number
        child = [sys.executable, '-c', other + ask]
        print(subprocess.run(child, capture_output=True, text=True).stdout.strip())
        # A rank may be started by a shell that the launcher has started.
        child = ['sh', '-c', '"$0" "$@"', sys.executable, '-c', ask]
        done = subprocess.run(child, capture_output=True, text=True, pass_fds=[number])
        print(done.stdout.strip() == str(number))
    """,
    )
    assert result.stdout.split() == ['None', 'None', 'True'], result.stderr
