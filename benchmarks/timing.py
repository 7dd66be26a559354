"""Timing for the benchmarks: several ways to do the same in turns, and goals as ratios.

Seconds and rates say as much about the machine and its other processes as about the code. So every
goal is a ratio of two costs measured in the same run:

- The ways take turns, and every second round reverses their order. Slow changes of the machine,
  such as its clock, are the same for all of them.
- Times are processor time of the process and its finished children. Other processes lengthen it
  only through shared caches.
- The median of the rounds' ratios counts. The smallest and the largest are printed beside it.

Missed goals are printed. They are the exit status only with ``--check``.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Fast functions are called repeatedly, for about this time.
_SECONDS_OF_TURN = 0.05
Seconds = Sequence[float] | np.ndarray


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def take_turns(
    ways: Mapping[str, Callable[[], Any]], rounds: int, warm_up: bool = True
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Call functions in turns and time them.

    Args:
        ways (dict): Functions by name.
        rounds (int): How often each is timed.
        warm_up (bool): Whether to call each twice before. Then those that take less than 50 ms are
            called several times in each of their turns, because the first call after another
            function finds cold caches.

    Returns:
        tuple: The last result of each, and its processor seconds for a call in each round.
    """
    results: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    calls = dict.fromkeys(ways, 1)
    if warm_up:
        for name, way in ways.items():
            way()
            start = processor_seconds()
            way()
            used = max(processor_seconds() - start, 1e-6)
            calls[name] = max(1, round(_SECONDS_OF_TURN / used))
    for k in range(rounds):
        for name in list(ways)[:: -1 if k % 2 else 1]:
            start = processor_seconds()
            for _ in range(calls[name]):
                results[name] = ways[name]()
            seconds[name].append((processor_seconds() - start) / calls[name])
    return results, seconds


class Costs(NamedTuple):
    """Costs of the processes of a command, by round.

    Attributes:
        wall (list of float): Seconds from start to end.
        processor (list of float): Seconds of processor time.
        memory (list of float): Peak resident memory in MB.
    """

    wall: list[float]
    processor: list[float]
    memory: list[float]


def costs_in_turns(
    commands: Mapping[str, Sequence[object]], rounds: int, **options: Any
) -> dict[str, Costs]:
    """Run commands in turns, each in a new process.

    The peak memory of a process is at least that of its parent when it was started, so the caller
    must be small.

    Args:
        commands (dict): Programs with their arguments, by name.
        rounds (int): How often each is run.
        options: Keyword arguments of :class:`subprocess.Popen`.

    Raises:
        SystemExit: A command has failed.
    """
    costs = {name: Costs([], [], []) for name in commands}
    for k in range(rounds):
        for name in list(commands)[:: -1 if k % 2 else 1]:
            for column, value in zip(costs[name], _run(commands[name], options), strict=True):
                column.append(value)
    return costs


def _run(command: Sequence[object], options: dict[str, Any]) -> tuple[float, float, float]:
    """Run a command; return its seconds, processor seconds, and peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], **options)
    _, ended, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode:
        name = ' '.join(str(part) for part in command[1:4])
        raise SystemExit(f'{name} ... ended with status {process.returncode}')
    unit = 1 if sys.platform == 'darwin' else 1024
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6


class Table:
    """Prints ratios line by line, and counts those that miss their goals.

    Attributes:
        missed (int): Number of missed goals.
    """

    def __init__(self) -> None:
        self.missed = 0
        print(
            f'{"":40}{"cost":>10}  {"reference":>10} {"":26}'
            f'{"ratio":>8}  {"least to most":>17}  {"goal":>9}'
        )

    def faster(
        self, name: str, own: Seconds, reference: Seconds, what: str, goal: float | None = None
    ) -> None:
        """Print how many times as fast as the reference; at least ``goal`` is wanted.

        Args:
            name (str): What was timed.
            own (sequence of float): Its seconds in each round.
            reference (sequence of float): Those of the reference in the same rounds.
            what (str): The reference.
            goal (float): The least ratio, or :obj:`None` for a ratio without a goal.
        """
        ratios = np.asarray(reference) / np.asarray(own)
        good = None if goal is None else bool(np.median(ratios) >= goal)
        wanted = '' if goal is None else f'>= {goal:g} x'
        self._print(name, own, reference, what, ratios, 'x', wanted, good, seconds_text)

    def share(
        self,
        name: str,
        own: Seconds,
        reference: Seconds,
        what: str,
        goal: float | None = None,
        text: Callable[[float], str] | None = None,
    ) -> None:
        """Print the cost as a multiple of the reference's; at most ``goal`` is wanted.

        Args:
            name, own, reference, what: See :meth:`faster`.
            goal (float): The largest ratio, or :obj:`None` for a ratio without a goal.
            text (callable): Formats a cost; by default as seconds.
        """
        ratios = np.asarray(own) / np.asarray(reference)
        good = None if goal is None else bool(np.median(ratios) <= goal)
        wanted = '' if goal is None else f'<= {goal:g}'
        self._print(name, own, reference, what, ratios, '', wanted, good, text or seconds_text)

    def fact(self, name: str, text: str) -> None:
        """Print a figure without a goal."""
        print(f'{name:40}{text:>10}', flush=True)

    def require(self, name: str, good: bool) -> None:
        """Print a goal that is not a ratio, such as agreement with the reference."""
        self.missed += not good
        print(f'{name}: {_verdict(good)}', flush=True)

    def _print(
        self,
        name: str,
        own: Seconds,
        reference: Seconds,
        what: str,
        ratios: np.ndarray,
        unit: str,
        wanted: str,
        good: bool | None,
        text: Callable[[float], str],
    ) -> None:
        self.missed += good is False
        low, median, high = (
            f'{figure(value)}{unit and " " + unit}'
            for value in (ratios.min(), np.median(ratios), ratios.max())
        )
        print(
            f'{name:40}{text(np.median(own)):>10}  {text(np.median(reference)):>10} {what:26}'
            f'{median:>8}  {low + " to " + high:>17}  {wanted:>9}  {_verdict(good)}'.rstrip(),
            flush=True,
        )


def _verdict(good: bool | None) -> str:
    return {None: '', True: 'reached', False: 'MISSED'}[good]


def figure(value: float) -> str:
    """Format a number with three digits that count: 0.00213, 1.52, 123, 4567."""
    return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'


def seconds_text(seconds: float) -> str:
    """Format a time: 1.52 s, 310 ms, 12.3 us."""
    for unit, factor in ('s', 1.0), ('ms', 1e3):
        if seconds * factor >= 1:
            return f'{figure(seconds * factor)} {unit}'
    return f'{figure(seconds * 1e6)} us'


def megabytes_text(megabytes: float) -> str:
    """Format an amount of memory: 12.3 MB, 1.52 GB."""
    if megabytes < 1000:
        return f'{figure(megabytes)} MB'
    return f'{figure(megabytes / 1e3)} GB'


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--check``."""
    parser.add_argument(
        '--check', action='store_true', help='exit with status 1 if a goal is missed'
    )


def status(missed: int, check: bool) -> int:
    """Return the exit status after so many missed goals."""
    return int(check and missed > 0)
