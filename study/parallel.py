"""Running the tasks of a study side by side."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


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
