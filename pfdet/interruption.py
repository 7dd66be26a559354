"""Signals that end a command: one line instead of a traceback, and nothing half-written.

A command handles SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1 from its first moment on:
:func:`listen` makes each of them raise :class:`Interrupted`, so that the clean-up of every function
runs; :func:`pfdet.errors.run_command` prints one line and exits with status 128 plus the signal.
Training records signals instead, see :class:`StopRequest`.

A second SIGINT ends the process at once, even while its main thread is in a library that does not
return to Python, such as an MPI call that waits for another rank. So it is handled in a thread,
which reads the signals from a pipe (:func:`signal.set_wakeup_fd`).
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

#: Signals that end a command.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Signals within this time are one: a terminal and a launcher may both pass on the same Ctrl-C.
_SECONDS_ONE_SIGNAL = 0.2
# Before an exception that a destructor or a callback has swallowed is raised again.
_SECONDS_AGAIN = 0.05


class Interrupted(KeyboardInterrupt):
    """A signal has asked this process to end.

    Attributes:
        number (int): The signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class _State:
    listening = False
    # The signal that was raised as an exception, or 0.
    raised = 0
    # Takes a signal instead of raising it, if it returns true.
    recorder: Callable[[int], bool] | None = None
    # Called with the signal that ends this process, and again before the process ends at once.
    receivers: list[Callable[[int], None]] = []
    # Called before the process ends at once.
    last_actions: list[Callable[[], None]] = []


_state = _State()


def listen() -> None:
    """Handle the :data:`SIGNALS` from now on.

    A signal that is ignored stays ignored, such as SIGHUP under ``nohup``. Only the main thread can
    set handlers; in other threads this does nothing.
    """
    if _state.listening or threading.current_thread() is not threading.main_thread():
        return
    _state.listening = True
    reading, writing = os.pipe()
    for end in reading, writing:
        os.set_inheritable(end, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second, args=(reading,), name='signals', daemon=True).start()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    sys.unraisablehook = _raise_again(sys.unraisablehook)
    # UCX, by which MPICH communicates, would stop this process at SIGHUP to let a debugger attach.
    os.environ.setdefault('UCX_DEBUG_SIGNO', '0')


def listen_again() -> None:
    """Set the handlers again, after a library such as MPI may have set its own."""
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, _handle)


def listen_if_command() -> None:
    """Call :func:`listen` if this process is one of pfdet's commands.

    The package calls this before it imports anything else. Programs that use pfdet as a library
    keep their own handling of signals.
    """
    # Python sets the first argument to '-m' while it imports the package of 'python -m PACKAGE'.
    program = sys.argv[0] if getattr(sys, 'argv', None) else ''
    if '--multiprocessing-fork' in sys.orig_argv:
        # A worker: the process that started it ends it.
        return
    if program == '-m' or os.path.basename(program) in ('pfdet', 'pfdet.exe'):
        listen()
        sys.excepthook = _end_before_command


def _end_before_command(kind, exception, traceback) -> None:
    """Report an exception of the imports before :func:`pfdet.errors.run_command`."""
    from pfdet.errors import end_all_ranks_on_exception

    end_all_ranks_on_exception()
    sys.excepthook(kind, exception, traceback)


def raised() -> int:
    """The signal that was raised as :class:`Interrupted`, or 0."""
    return _state.raised


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.recorder is not None and _state.recorder(number):
        return
    if not _state.raised:
        _state.raised = number
        _pass_on(number)
        raise Interrupted(number)


def _pass_on(number: int) -> None:
    for receive in list(_state.receivers):
        with contextlib.suppress(Exception):
            receive(number)


def _end_at_second(pipe: int) -> None:
    first = None
    while received := os.read(pipe, 256):
        now = time.monotonic()
        if signal.SIGINT not in received:
            continue
        if first is None:
            first = now
        elif now - first > _SECONDS_ONE_SIGNAL:
            end_at_once(signal.SIGINT)


def end_at_once(number: int) -> None:
    """Print the line of an interrupted command, and end this process without its clean-up.

    Files that are being written are removed, and processes that were started are told to end.

    Args:
        number (int): The signal.
    """
    _pass_on(number)
    clean_up()
    # Not sys.stderr: its lock may be held by the main thread.
    with contextlib.suppress(OSError):
        os.write(2, f'{describe(number)}\n'.encode())
    os._exit(status(number))


def clean_up() -> None:
    """Do what is needed before this process ends at once, such as removing unfinished files."""
    for action in list(_state.last_actions):
        with contextlib.suppress(Exception):
            action()


def describe(number: int) -> str:
    """The line that an interrupted command prints."""
    if number == signal.SIGINT:
        return 'interrupted'
    return f'interrupted by {signal.Signals(number).name}'


def status(number: int) -> int:
    """The exit status of a command that was ended by a signal, as a shell gives it."""
    return 128 + number


def _raise_again(hook: Callable) -> Callable:
    """Wrap ``sys.unraisablehook``: raise an interruption later that could not be raised now."""

    def handle(unraisable) -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            hook(unraisable)
            return
        number, _state.raised = unraisable.exc_value.number, 0
        timer = threading.Timer(_SECONDS_AGAIN, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    return handle


@contextlib.contextmanager
def before_ending_at_once(action: Callable[[], None]) -> Iterator[None]:
    """Within the block, a process that ends at once calls ``action`` first.

    Args:
        action (callable): Takes no argument. It is called in a thread.
    """
    _state.last_actions.append(action)
    try:
        yield
    finally:
        _state.last_actions.remove(action)


@contextlib.contextmanager
def passed_on(receive: Callable[[int], None]) -> Iterator[None]:
    """Within the block, a signal that ends this process is passed on.

    Args:
        receive (callable): Takes the signal. It is called in the main thread when the first signal
            arrives, whatever thread entered the block, and once more before the process ends at
            once. Exceptions are ignored.
    """
    _state.receivers.append(receive)
    try:
        yield
    finally:
        _state.receivers.remove(receive)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within the block, no signal is raised; the first one is raised at its end.

    For the few statements between which an exception would lose something, such as the start of a
    process and what ends it. In other threads than the main one, in which nothing is raised, this
    does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, waiting = _state.recorder, []

    def record(number: int) -> bool:
        if before is None or not before(number):
            waiting.append(number)
        return True

    _state.recorder = record
    try:
        yield
    finally:
        _state.recorder = before
        if waiting:
            _handle(waiting[0], None)


@contextlib.contextmanager
def not_in_children() -> Iterator[None]:
    """Workers of :mod:`multiprocessing` started in the block do not take SIGINT and SIGHUP.

    A terminal sends them to all processes of a command. Workers would print a traceback each; they
    end with the process that started them.
    """
    from multiprocessing import resource_tracker

    # Its start would let the signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Records signals that ask a training run to stop.

    Attributes:
        signal (int): The last signal recorded, or 0.
    """

    def __init__(self):
        self.signal = 0
        self._recorded: set[int] = set()

    def listen(self, signals: Sequence[int] = (signal.SIGTERM, signal.SIGUSR1)) -> None:
        """Record these signals instead of ending the process."""
        self._recorded.update(signals)
        _state.recorder = self._record
        for number in signals:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)

    def defer(self) -> None:
        """Record all :data:`SIGNALS` from now on, because there is something to save.

        During set-up, SIGINT and SIGHUP end the process: nothing has been trained yet. SIGTERM and
        SIGUSR1 are recorded from the beginning, because a run that a scheduler preempts must exit
        with the status of a preempted run.
        """
        if self._recorded:
            self.listen(SIGNALS)

    def _record(self, number: int) -> bool:
        if number not in self._recorded:
            return False
        self.signal = number
        return True
