"""Slurm on this machine alone, with configuration, state and ports of its own."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'scontrol', 'sinfo')
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port[0]}
SlurmdPort={port[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=300
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def find(program: str) -> str | None:
    """The path of a program; daemons may be outside of an ordinary user's ``PATH``."""
    return shutil.which(program, path=os.environ.get('PATH', '') + ':/usr/sbin:/sbin')


class SlurmCluster:
    """A cluster of this machine, with the partitions ``low`` and ``high``; ``high`` preempts.

    A preempted job has 300 seconds to end.

    Args:
        folder (Path): For all its files; the path must be short, because it has a socket.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {**os.environ, 'SLURM_CONF': str(folder / 'slurm.conf')}
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> 'SlurmCluster':
        folder = self.folder
        for name in 'state', 'spool':
            (folder / name).mkdir()
        key = folder / 'munge.key'
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        with socket.socket() as one, socket.socket() as other:
            for each in one, other:
                each.bind(('127.0.0.1', 0))
            ports = one.getsockname()[1], other.getsockname()[1]
        (folder / 'slurm.conf').write_text(
            _CONFIGURATION.format(
                host=socket.gethostname().split('.')[0],
                port=ports,
                user=os.environ.get('USER') or 'root',
                folder=folder,
            )
        )
        try:
            files = {'key': key.name, 'socket': 'munge.socket', 'pid': 'munge.pid'}
            files |= {'log': 'munge.log', 'seed': 'munge.seed'}
            paths = [
                f'--{name}{"" if name == "socket" else "-file"}={folder / file}'
                for name, file in files.items()
            ]
            self._start('munged', '--foreground', '--force', *paths)
            self._wait((folder / 'munge.socket').exists)
            self._start('slurmctld', '-D', '-c')
            self._start('slurmd', '-D')
            self._wait(lambda: 'idle' in self.run('sinfo', '--noheader', check=False))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, program: str, *args: object, check: bool = True) -> str:
        """Run a client of Slurm and return what it prints."""
        command = [find(program), *map(str, args)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, f'{command}: {done.stdout}{done.stderr}'
        return done.stdout

    def submit(self, *args: object) -> str:
        """Submit a job and return its id."""
        return self.run('sbatch', '--parsable', *args).strip()

    def job(self, number: str) -> dict[str, str]:
        """The state of a job, as ``scontrol show job`` prints it."""
        words = self.run('scontrol', '--oneliner', 'show', 'job', number).split()
        return dict(word.split('=', 1) for word in words if '=' in word)

    def logs(self) -> str:
        """What the daemons have written, for the message of a test that fails."""
        return '\n'.join(p.read_text(errors='replace')[-3000:] for p in self.folder.glob('*.log'))

    def _start(self, program: str, *args: str) -> None:
        with (self.folder / f'{program}.out').open('w') as out:
            self._processes.append(
                subprocess.Popen(
                    [find(program), *args], env=self.environment, stdout=out, stderr=out
                )
            )

    def _wait(self, condition) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert all(process.poll() is None for process in self._processes), self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)
