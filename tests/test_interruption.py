"""Signals and closed pipes end every command in one line or none, with the status of a shell."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pfdet.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


def default_signals() -> None:
    for number in signal.SIGINT, signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)


def start(*command, path=(), signals=default_signals, **kwargs) -> subprocess.Popen:
    """Start Python with the package on its path, in a session of its own."""
    folders = [*map(str, path), str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(folders), OMP_NUM_THREADS='1')
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=signals,
        **kwargs,
    )


def program(source: str, *arguments, **kwargs) -> subprocess.Popen:
    """Start a program with ``run_command``; ``ready()`` in it tells the test to go on."""
    lines = """
        import os, sys, threading, time
        from pathlib import Path
        from pfdet.errors import InputError, run_command

        def ready():
            print('ready', flush=True)

    """
    return start('-c', textwrap.dedent(lines) + textwrap.dedent(source), *arguments, **kwargs)


def wait_until_ready(process: subprocess.Popen) -> None:
    line = process.stdout.readline()
    assert line == 'ready\n', line + process.stderr.read()


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        stdout, stderr = process.communicate(timeout=600)
    finally:
        process.kill()
    return process.returncode, stdout, stderr


ONE_LINE = {
    signal.SIGINT: (130, 'interrupted\n'),
    signal.SIGTERM: (143, 'interrupted by SIGTERM\n'),
    signal.SIGHUP: (129, 'interrupted by SIGHUP\n'),
    signal.SIGUSR1: (138, 'interrupted by SIGUSR1\n'),
}


@pytest.mark.parametrize('number', ONE_LINE)
def test_a_signal_is_one_line_and_nothing_half_written_stays(number, tmp_path):
    process = program(
        """
        from pfdet.atomic_write import replace_when_done

        def main():
            with replace_when_done(Path(sys.argv[1]) / 'result') as path:
                path.write_text('half')
                ready()
                time.sleep(600)

        run_command(main)
        """,
        tmp_path,
    )
    wait_until_ready(process)
    process.send_signal(number)
    assert end(process) == (ONE_LINE[number][0], '', ONE_LINE[number][1])
    assert list(tmp_path.iterdir()) == []


def test_an_exception_that_replaces_the_interruption_is_not_shown():
    process = program("""
        def main():
            try:
                ready()
                time.sleep(600)
            except BaseException:
                raise InputError('the file is half written') from None

        run_command(main)
    """)
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, '', 'interrupted\n')


def test_an_interruption_of_a_destructor_is_raised_afterwards():
    """Python ignores exceptions of destructors, and would print their traceback."""
    process = program("""
        class Slow:
            def __del__(self):
                ready()
                time.sleep(600)

        def main():
            slow = Slow()
            del slow
            time.sleep(600)

        run_command(main)
    """)
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, '', 'interrupted\n')


# What the main thread does between the first and the second SIGINT.
BUSY = {
    'clean-up': 'time.sleep(600)',
    # Never returns to Python, like an MPI call that waits for another rank.
    'library': """
        import ctypes
        mutex = ctypes.create_string_buffer(256)
        lock = ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        lock(mutex)
    """,
    'thread': """
        thread = threading.Thread(target=time.sleep, args=(600,))
        thread.start()
        thread.join()
    """,
}
SECOND = """
from pfdet.atomic_write import replace_when_done

def main():
    with replace_when_done(Path(sys.argv[1]) / 'result'):
        try:
            ready()
            time.sleep(600)
        finally:
            ready()
            busy()

def busy():
    %s

run_command(main)
"""


@pytest.mark.parametrize('busy', BUSY)
def test_a_second_sigint_ends_at_once(busy, tmp_path):
    lines = textwrap.dedent(BUSY[busy]).strip().replace('\n', '\n    ')
    process = program(SECOND % lines, tmp_path)
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    wait_until_ready(process)
    # The thread that counts the signals takes those of a moment for one.
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, '', 'interrupted\n')
    assert list(tmp_path.iterdir()) == []


def test_the_same_ctrl_c_by_two_ways_counts_once():
    """A launcher may forward the signal that the terminal has sent to the process itself."""
    process = program("""
        from pfdet import interruption

        # The test may be slow.
        interruption._SECONDS_ONE_SIGNAL = 1000

        def main():
            try:
                ready()
                time.sleep(600)
            finally:
                time.sleep(0.5)
                print('cleaned up', flush=True)

        run_command(main)
    """)
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    # Signals that are pending at the same time are one anyway.
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, 'cleaned up\n', 'interrupted\n')


def test_an_ignored_signal_stays_ignored():
    process = program(
        """
        def main():
            ready()
            print(sys.stdin.readline(), end='')

        run_command(main)
        """,
        signals=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_until_ready(process)
    process.send_signal(signal.SIGHUP)
    process.stdin.write('went on\n')
    assert end(process) == (0, 'went on\n', '')


def test_other_exceptions_keep_their_traceback_and_status():
    process = program("""
        def main():
            raise BrokenPipeError('of a socket')

        run_command(main)
    """)
    status, stdout, stderr = end(process)
    assert status == 1 and 'Traceback' in stderr and 'of a socket' in stderr


@pytest.fixture
def held_import(tmp_path):
    """A folder with a package ``numpy`` whose import tells the test, and does not end."""
    package = tmp_path / 'held' / 'numpy'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(
        "import sys, time\nprint('ready', flush=True)\ntime.sleep(600)\n"
    )
    return package.parent


WAYS = {name: ('-m', 'pfdet', name, '--help') for name in COMMANDS}
WAYS |= {
    f'module {module}': ('-m', module, '--help')
    for module in ('pfdet.openimages.build_index', 'pfdet.openimages.statistics')
}
WAYS |= {
    'script': (ROOT / 'train' / 'train_multi.py', '--show'),
    'show': ('-m', 'pfdet', 'train', '--show'),
}


@pytest.mark.parametrize('way', WAYS)
def test_signals_during_the_imports_of_a_command(way, held_import):
    process = start(*WAYS[way], path=[held_import])
    for line in process.stdout:
        if line == 'ready\n':
            process.send_signal(signal.SIGINT)
            assert end(process) == (130, '', 'interrupted\n')
            return
    # The command answers without NumPy.
    assert end(process)[::2] == (0, '')


PIPED = {
    'usage': ('-m', 'pfdet'),
    'version': ('-m', 'pfdet', '--version'),
    'help': ('-m', 'pfdet', 'train', '--help'),
    'list': ('-m', 'pfdet', 'train', '--list'),
    'module': ('-m', 'pfdet.openimages.build_index', '--help'),
    'script': (ROOT / 'train' / 'train_multi.py', '--list'),
}


@pytest.mark.parametrize('way', PIPED)
def test_a_closed_pipe_ends_a_command_quietly(way):
    process = start(*PIPED[way])
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ''
    assert process.wait(600) == 141


def test_a_pipe_that_is_closed_in_the_midst_of_the_output():
    process = program("""
        def main():
            for i in range(10 ** 9):
                print('line', i)

        run_command(main)
    """)
    assert process.stdout.readline() == 'line 0\n'
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ''
    assert process.wait(600) == 141


# The child notes every signal, and ends as a training run does.
CHILD = """
    import signal, sys, time

    def note(number, frame):
        print('got', signal.Signals(number).name, flush=True)
        global status
        status = 128 + number

    status = 0
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, note)
    print('ready', flush=True)
    while not status:
        time.sleep(0.01)
    time.sleep(0.5)
    print('snapshot', flush=True)
    sys.exit(status)
"""


@pytest.mark.parametrize('to_group', [False, True])
@pytest.mark.parametrize(
    'number, passed_on', [(signal.SIGINT, 'SIGINT'), (signal.SIGHUP, 'SIGTERM')]
)
@pytest.mark.parametrize('in_thread', [False, True])
def test_a_signal_is_passed_on_once_to_the_commands_that_a_command_runs(
    number, passed_on, to_group, in_thread, tmp_path
):
    child = tmp_path / 'child.py'
    child.write_text(textwrap.dedent(CHILD))
    process = program(
        """
        from concurrent.futures import ThreadPoolExecutor
        from pfdet.subprocesses import run_python

        def main():
            if sys.argv[2] == 'False':
                run_python(sys.argv[1])
            else:
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(run_python, sys.argv[1]).result()

        run_command(main)
        """,
        child,
        in_thread,
    )
    assert process.stdout.readline().startswith('$ ')
    wait_until_ready(process)
    (os.killpg if to_group else os.kill)(process.pid, number)
    status, line = ONE_LINE[number]
    assert end(process) == (status, f'got {passed_on}\nsnapshot\n', line)


def test_workers_of_a_command_say_nothing(tmp_path):
    """A terminal sends SIGINT to all processes of a command."""
    out = tmp_path / 'data'
    process = start('-m', 'pfdet', 'make-mini', '--out', out, '--images', 5000, '--workers', 2)
    # It writes to another folder first.
    while process.poll() is None and next(tmp_path.rglob('*.jpg'), None) is None:
        subprocess.run(['sleep', '0.05'], check=True)
    os.killpg(process.pid, signal.SIGINT)
    status, stdout, stderr = end(process)
    assert (status, stderr) == (130, 'interrupted\n'), stderr
