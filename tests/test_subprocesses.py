"""Signals to a command that runs ranks."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Notes the first signal, and ends a little later.
LAUNCHER = f"""#!{sys.executable}
import os
import signal
import sys
import time

if sys.argv[1] == '--version':
    print('VERSION')
    sys.exit()
asked = []

def note(number, frame):
    asked.append(number)
    os.write(1, b'got ' + signal.Signals(number).name[3:].encode() + b'\\n')

for name in 'INT', 'TERM', 'HUP', 'USR1':
    signal.signal(getattr(signal, 'SIG' + name), note)
READY
for _ in range(6000):
    time.sleep(0.1)
    if asked:
        time.sleep(0.3)
        os.write(1, b'snapshot\\n')
        sys.exit(75)
"""
PROGRAM = """
from pfdet.errors import run_command
from pfdet.subprocesses import run_python

run_command(lambda: run_python('train.py', ranks=2))
"""


@pytest.mark.parametrize(
    'version, number, passed_on',
    [
        ('mpiexec (Open MPI) 5.0.3', signal.SIGTERM, 'USR1'),
        ('mpiexec (Open MPI) 5.0.3', signal.SIGINT, 'USR1'),
        ('mpiexec (OpenRTE) 4.1.4', signal.SIGHUP, 'USR1'),
        ('mpiexec (OpenRTE) 4.1.4', signal.SIGUSR1, 'USR1'),
        ('HYDRA build details:', signal.SIGTERM, 'TERM'),
        ('HYDRA build details:', signal.SIGINT, 'INT'),
        ('HYDRA build details:', signal.SIGHUP, 'TERM'),
    ],
)
def test_the_launcher_gets_a_signal_that_it_forwards(tmp_path, version, number, passed_on):
    launcher = tmp_path / 'mpiexec'
    text = LAUNCHER.replace('VERSION', version)
    launcher.write_text(text.replace('READY', "os.write(1, b'ready\\n')"))
    launcher.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(PROGRAM)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'MPIEXEC': str(launcher)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith('$ ')
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=600)
    assert stdout == f'got {passed_on}\nsnapshot\n'
    assert process.returncode == 128 + number and stderr.count('\n') == 1


# The signal comes when the launcher has been started, but is not known yet to its starter.
AT_THE_START = """
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from pfdet.errors import run_command
from pfdet.subprocesses import run_python

number, in_thread = int(sys.argv[1]), sys.argv[2] == 'thread'

class Popen(subprocess.Popen):
    def __init__(self, command, **options):
        super().__init__(command, **options)
        if '--version' not in command:
            while not os.path.exists('ready'):
                time.sleep(0.01)
            os.kill(os.getpid(), number)
            time.sleep(0.1)

subprocess.Popen = Popen

def run():
    if not in_thread:
        run_python('train.py', ranks=2)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run_python, 'train.py', ranks=2).result()

run_command(run)
"""


@pytest.mark.faults('signals')
@pytest.mark.parametrize('place', ['main', 'thread'])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_while_the_launcher_starts(tmp_path, number, place):
    launcher = tmp_path / 'mpiexec'
    text = LAUNCHER.replace('VERSION', 'HYDRA build details:')
    launcher.write_text(text.replace('READY', "open('ready', 'w').close()"))
    launcher.chmod(0o755)
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(AT_THE_START), str(int(number)), place],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'MPIEXEC': str(launcher)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    passed_on = {signal.SIGHUP: 'TERM'}.get(number, number.name[3:])
    assert done.stdout.splitlines()[1:] == [f'got {passed_on}', 'snapshot']
    assert done.returncode == 128 + number and done.stderr.count('\n') == 1, done.stderr
