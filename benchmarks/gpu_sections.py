"""Where the time of a training step goes: backbone, RPN, targets, head, all-reduce, update.

Events are recorded at every change of section, so that nothing waits while the step runs. The time
of a section is the time on the device between its events, including idle time in which the device
waits for the host. In the backward pass, each function belongs to the section of its forward pass.
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
    """Time stamps of the host's clock, for arrays on the CPU."""

    def stamp(self) -> float:
        """The current time."""
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        """Time between two stamps."""
        return end - start

    def wait(self) -> None:
        """Do nothing: the host is synchronous."""


class DeviceClock:
    """CUDA events of the current stream."""

    def __init__(self) -> None:
        from chainer.backends import cuda

        self._cuda = cuda.cupy.cuda

    def stamp(self):
        """Record an event."""
        event = self._cuda.Event()
        event.record()
        return event

    def seconds(self, start, end) -> float:
        """Time between two completed events."""
        return self._cuda.get_elapsed_time(start, end) / 1000

    def wait(self) -> None:
        """Wait until all queued work is done."""
        self._cuda.Stream.null.synchronize()


class Sections(chainer.FunctionHook):
    """Take a time stamp at every change of section.

    Args:
        clock (HostClock or DeviceClock): Takes the time stamps.
    """

    name = 'Sections'

    def __init__(self, clock):
        self.clock = clock
        self.now = 'other'
        self._stamps = []

    def switch(self, section: str) -> None:
        """Begin a section."""
        if section != self.now or not self._stamps:
            self.now = section
            self._stamps.append((section, self.clock.stamp()))

    @contextlib.contextmanager
    def inside(self, section: str) -> Iterator[None]:
        """Run the block in a section, then return to the previous one."""
        before = self.now
        self.switch(section)
        try:
            yield
        finally:
            self.switch(before)

    def within(self, section: str, function: Callable) -> Callable:
        """Wrap a function so that it runs in a section."""

        def timed(*args, **kwargs):
            with self.inside(section):
                return function(*args, **kwargs)

        return timed

    def seconds(self) -> dict[str, float]:
        """Time of each section since the last call."""
        stamps = [*self._stamps, ('', self.clock.stamp())]
        self.clock.wait()
        total = collections.Counter(dict.fromkeys(SECTIONS, 0.0))
        for (section, start), (_, end) in zip(stamps, stamps[1:]):
            total[section] += self.clock.seconds(start, end)
        self._stamps.clear()
        return dict(total)

    def forward_postprocess(self, function, in_data) -> None:
        """Store the section of a function's forward pass."""
        function.section = self.now

    def backward_preprocess(self, function, in_data, out_grad) -> None:
        """Switch to the section of the function's forward pass."""
        self.switch(getattr(function, 'section', 'other'))


@contextlib.contextmanager
def divided(chain, sections: Sections, comm=None) -> Iterator[None]:
    """Within the block, the parts of a training step switch sections.

    Args:
        chain (TrainChain): The chain to train.
        sections (Sections): Collects the times.
        comm (ChainerMN communicator): Its ``multi_node_mean_grad`` is the all-reduce section.
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
    """Return a function that restores an attribute of the object or of its class."""
    if name in vars(owner):
        value = vars(owner)[name]
        return lambda: setattr(owner, name, value)
    return lambda: delattr(owner, name)
