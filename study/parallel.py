"""Running the tasks of a study side by side."""

import argparse
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from pfdet.flags import integer


def run_in_parallel(tasks: Iterable[Callable[[], object]], jobs: int) -> None:
    """Run tasks, started in the given order; the first error cancels those not started yet.

    Args:
        tasks (iterable of callables): Without arguments.
        jobs (int): Number of tasks at a time.
    """
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(task) for task in tasks]
        try:
            for task in started:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs``, the number of tasks at a time; by default one per core."""
    parser.add_argument(
        '--jobs',
        type=integer(1, 1024),
        default=os.cpu_count() or 1,
        help='parallel runs of one rank and one thread each (default: %(default)s)',
    )
