"""Spread independent jobs over worker processes, with progress, interruption and one clear error.

Each worker is a fresh interpreter (spawn) with one thread for every numeric library, so that two workers on
two cores do not fight each other. None outlives the process that asked for it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reflexarc.lifeline import end_with

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
"""LP_NUM_THREADS caps Mesa's software renderer (llvmpipe)."""


def cap_threads(count: int = 1) -> None:
    """Cap the threads of numeric libraries and of the software renderer in this process and its children."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)


def run_jobs[J, R](
    work: Callable[[J], R], jobs: Sequence[J], *, workers: int, title: str
) -> Iterator[tuple[J, R]]:
    """Yield (job, result) as they finish. `work` and its arguments must be importable by a fresh interpreter.

    An exception in a job is raised here after the other workers were cancelled.
    """
    cap_threads()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task(title, total=len(jobs))
        if workers <= 1:
            for job in jobs:
                yield job, work(job)
                progress.advance(bar)
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=end_with, initargs=(os.getpid(),))
        try:
            waiting: dict[Future[R], J] = {pool.submit(work, job): job for job in jobs}
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
                    progress.advance(bar)
            pool.shutdown()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
