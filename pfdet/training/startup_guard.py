"""The start of MPI, watched from outside: a rank that is frozen before it keeps all others waiting.

The watchdog's threads (:mod:`pfdet.training.watchdog`) do not run during the start of MPI: mpi4py
holds Python's lock in it. So the first rank of each node starts a small process, which is told when
MPI has started. If it is not told within the time limit, it looks for stopped ranks on its node,
and kills them and the rank that started it. The launcher then ends the job.

This file is also that process's program. It imports nothing of this package, so that it starts fast
and needs little memory.
"""

import os
import select
import socket
import subprocess
import sys
import time

# By launcher: variables with the rank and the rank on its node.
_RANKS = ('PMI_RANK', 'MPI_LOCALRANKID'), ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK')
_RANKS += (('PMIX_RANK', 'SLURM_LOCALID'), ('PMI_RANK', 'SLURM_LOCALID'))
# Nodes without a stopped rank report later than the one with it.
_SECONDS_LATER = 10.0
_SECONDS_TO_PASS_ON = 1.0
#: Exit status of a job that was ended because a rank had stopped, that of the program ``timeout``.
STATUS = 124


class StartupGuard:
    """Watch the start of MPI, from the construction of this object until :meth:`close`.

    Args:
        timeout (float): Seconds that MPI may take to start; 0 not to watch it.
    """

    def __init__(self, timeout: float):
        self._process = None
        found = [pair for pair in _RANKS if all(name in os.environ for name in pair)]
        if timeout <= 0 or not found or os.environ[found[0][1]] != '0':
            return
        # Not above: the program below does without this package.
        from pfdet.errors import launcher_socket

        launcher = launcher_socket()
        arguments = [str(os.getpid()), found[0][0], str(timeout), str(launcher or '')]
        self._process = subprocess.Popen(
            [sys.executable, '-I', '-S', __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[] if launcher is None else [launcher],
        )

    def close(self) -> None:
        """MPI has started."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None


def _main() -> None:
    pid, variable, timeout = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    if _is_told(timeout):
        return
    ranks = _ranks(pid, variable)
    stopped = {rank: p for rank, p in ranks.items() if _stat(p)[0] in 'Tt'}
    node = socket.gethostname()
    if stopped:
        rank, *others = sorted(stopped)
        more = f' and {len(others)} more ranks' if others else ''
        line = f'rank {rank}{more} on node {node} is frozen in the start-up'
    else:
        if _is_told(_SECONDS_LATER):
            return
        line = f'MPI does not start on node {node}: a rank of another node is frozen or missing'
    line = f'error: {line}; waited for {timeout:g} seconds (--rank-timeout); the job ends\n'
    os.write(2, line.encode())
    # For the launcher to forward the line.
    time.sleep(_SECONDS_TO_PASS_ON)
    if sys.argv[4]:
        os.write(int(sys.argv[4]), f'cmd=abort exitcode={STATUS}\n'.encode())
        time.sleep(_SECONDS_TO_PASS_ON)
    for p in {*stopped.values(), pid}:
        try:
            os.kill(p, 9)
        except OSError:
            pass


def _is_told(seconds: float) -> bool:
    """Wait until the rank closes the pipe, or ends."""
    return bool(select.select([0], [], [], seconds)[0])


def _ranks(pid: int, variable: str) -> dict[int, int]:
    """Process ids of the ranks that the launcher has started on this node."""
    launcher = _stat(pid)[1]
    ranks = {}
    for entry in os.listdir('/proc'):
        if entry.isdigit() and _stat(int(entry))[1] == launcher:
            try:
                with open(f'/proc/{entry}/environ', 'rb') as file:
                    environment = dict(v.partition(b'=')[::2] for v in file.read().split(b'\0'))
                ranks[int(environment[variable.encode()])] = int(entry)
            except (OSError, KeyError, ValueError):
                pass
    return ranks


def _stat(pid: int) -> tuple[str, str]:
    """State and parent of a process."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            # Split after the program name, which may contain blanks and parentheses.
            state, parent = file.read().rpartition(')')[2].split()[:2]
    except (OSError, ValueError):
        return '', ''
    return state, parent


if __name__ == '__main__':
    _main()
