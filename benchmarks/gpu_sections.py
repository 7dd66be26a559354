"""Where the time of a training step goes: backbone, RPN, targets, head, all-reduce, update.

Events are recorded where one section ends and the next begins, so that nothing waits while the step
runs; a section's time is what passes on the device between its events, the device's idling for the
host among it. Backward, each function belongs to the section it ran forward in.
"""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator

import chainer

from pfdet.targets import rules, sampling
from pfdet.training import train_chain

SECTIONS = ('data', 'backbone', 'RPN', 'targets', 'head', 'all-reduce', 'update', 'other')


class HostClock:
    """Stamps of the host's clock, for arrays on the CPU."""

    def stamp(self) -> float:
        """Now."""
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        """Between two stamps."""
        return end - start

    def wait(self) -> None:
        """There is nothing to wait for."""


class DeviceClock:
    """CUDA events of the current stream."""

    def __init__(self) -> None:
        from chainer.backends import cuda

        self._cuda = cuda.cupy.cuda

    def stamp(self):
        """An event, recorded now."""
        event = self._cuda.Event()
        event.record()
        return event

    def seconds(self, start, end) -> float:
        """Between two events that have passed."""
        return self._cuda.get_elapsed_time(start, end) / 1000

    def wait(self) -> None:
        """Until all that was asked for is done."""
        self._cuda.Stream.null.synchronize()


class Sections(chainer.FunctionHook):
    """Stamps at every change of section.

    Args:
        clock (HostClock or DeviceClock): Gives the stamps.
    """

    name = 'Sections'

    def __init__(self, clock):
        self.clock = clock
        self.now = 'other'
        self._stamps = []

    def switch(self, section: str) -> None:
        """What follows belongs to this section."""
        if section != self.now or not self._stamps:
            self.now = section
            self._stamps.append((section, self.clock.stamp()))

    @contextlib.contextmanager
    def inside(self, section: str) -> Iterator[None]:
        """The block belongs to this section; what comes after, to the one before."""
        before = self.now
        self.switch(section)
        try:
            yield
        finally:
            self.switch(before)

    def within(self, section: str, function: Callable) -> Callable:
        """The function, in this section."""

        def timed(*args, **kwargs):
            with self.inside(section):
                return function(*args, **kwargs)

        return timed

    def seconds(self) -> dict[str, float]:
        """Time of each section up to now; starts again from nothing."""
        stamps = [*self._stamps, ('', self.clock.stamp())]
        self.clock.wait()
        total = collections.Counter(dict.fromkeys(SECTIONS, 0.0))
        for (section, start), (_, end) in zip(stamps, stamps[1:]):
            total[section] += self.clock.seconds(start, end)
        self._stamps.clear()
        return dict(total)

    def forward_postprocess(self, function, in_data) -> None:
        """Note where a function ran."""
        function.section = self.now

    def backward_preprocess(self, function, in_data, out_grad) -> None:
        """Go back to there."""
        self.switch(getattr(function, 'section', 'other'))


@contextlib.contextmanager
def divided(chain, sections: Sections, comm=None) -> Iterator[None]:
    """Within the block, the parts of a training chain's step switch sections.

    Args:
        chain (TrainChain): What is trained.
        sections (Sections): Takes the times.
        comm (ChainerMN communicator): Whose mean of the gradients is the all-reduce.
    """
    detector = chain.detector
    parts = [
        (detector, 'prepare', 'data'),
        (detector.extractor, 'forward', 'backbone'),
        *((detector.rpn, name, 'RPN') for name in ('forward', 'anchors', 'decode')),
        (train_chain, 'rpn_loss', 'RPN'),
        *((sampling, name, 'targets') for name in ('priorities', 'sample_anchors', 'sample_rois')),
        (rules, 'positives', 'targets'),
        (detector.head, 'forward', 'head'),
        (chain, 'loss', 'head'),
        (chain, '_head_loc_loss', 'head'),
    ]
    if comm is not None:
        parts.append((comm, 'multi_node_mean_grad', 'all-reduce'))
    own_rules = chain.target_rules
    with contextlib.ExitStack() as stack:
        for owner, name, section in parts:
            stack.callback(_restore(owner, name))
            setattr(owner, name, sections.within(section, getattr(owner, name)))
        chain.target_rules = tuple(sections.within('targets', rule) for rule in own_rules)
        stack.callback(setattr, chain, 'target_rules', own_rules)
        stack.enter_context(sections)
        yield


def _restore(owner, name: str) -> Callable[[], None]:
    """What undoes the setting of an attribute, whether it was the object's own or its class's."""
    if name in vars(owner):
        value = vars(owner)[name]
        return lambda: setattr(owner, name, value)
    return lambda: delattr(owner, name)
