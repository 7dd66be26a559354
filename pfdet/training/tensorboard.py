"""The log of a run for TensorBoard."""

import time
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from chainer import training

from pfdet.optional_packages import optional_package

_PACKAGE = 'tensorboardX'
_VALIDATION = 'validation/'


class TensorBoard(training.Extension):
    """Write the values of the log as scalars to event files in ``out/tensorboard``.

    The tags are the keys of the log, such as ``main/loss`` and ``lr``, at the iterations of its
    entries. Results of validations are at the iteration of the validation.

    A value is in the file when the iteration ends, so that killing the run loses none. A resumed
    run writes another file. It begins with a mark by which TensorBoard drops what an earlier file
    has beyond the snapshot, so that no iteration has two points. If there is no file yet, it has
    the entries of before, too.

    The first rank runs it in every iteration. Its classes of tensorboardX write without threads.

    Args:
        out (path): Output directory of the run.

    Raises:
        InputError: tensorboardX is not installed.
    """

    # After the log, before the snapshot
    priority = training.PRIORITY_READER - 1

    def __init__(self, out: Path):
        self.directory = Path(out) / 'tensorboard'
        self._event_class = optional_package(_PACKAGE, 'proto.event_pb2')
        self._summary_class = optional_package(_PACKAGE, 'proto.summary_pb2').Summary
        self._writer_class = optional_package(_PACKAGE, 'event_file_writer').EventsWriter
        self._writer: Any = None
        self._n_entry = 0

    # A function, unlike a trigger object, adds no state to the snapshot.
    @staticmethod
    def trigger(trainer) -> bool:
        """Fire in every iteration."""
        return True

    def initialize(self, trainer) -> None:
        """Open a new file; ``trainer`` has been resumed, if at all."""
        log = trainer.get_extension('LogReport').log
        is_first = not any(self.directory.glob('events.out.tfevents.*'))
        iteration = trainer.updater.iteration
        self.directory.mkdir(parents=True, exist_ok=True)
        # Names are ordered by time in seconds, and equal ones would replace the file.
        self._writer = self._writer_class(
            str(self.directory / 'events'), f'.{iteration:08d}.{time.time_ns()}'
        )
        event = self._event_class
        start = event.SessionLog(status=event.SessionLog.START)
        self._write(iteration + 1, session_log=start)
        for entry in log if is_first else ():
            self._write_scalars(entry['iteration'], entry)
        self._n_entry = len(log)
        self._writer.flush()

    def __call__(self, trainer) -> None:
        iteration = trainer.updater.iteration
        values = {k: v for k, v in trainer.observation.items() if k.startswith(_VALIDATION)}
        log = trainer.get_extension('LogReport').log
        for entry in log[self._n_entry :]:
            # The log repeats the last validation before the entry.
            values.update((k, v) for k, v in entry.items() if not k.startswith(_VALIDATION))
        self._n_entry = len(log)
        if values:
            self._write_scalars(iteration, values)
            self._writer.flush()

    def finalize(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _write_scalars(self, iteration: int, values: Mapping[str, Any]) -> None:
        scalar = self._summary_class.Value
        points = [
            scalar(tag=name, simple_value=float(value))
            for name, value in values.items()
            if name != 'iteration' and isinstance(value, Real)
        ]
        self._write(iteration, summary=self._summary_class(value=points))

    def _write(self, iteration: int, **content: Any) -> None:
        event = self._event_class.Event(wall_time=time.time(), step=iteration, **content)
        self._writer.write_event(event)
