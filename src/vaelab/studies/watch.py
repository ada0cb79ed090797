"""The parent of the workers: starts them, shows how far the study is, and stops them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from vaelab import files
from vaelab.errors import RunError
from vaelab.studies.study import Job, Study
from vaelab.training.entries import fault_of
from vaelab.training.progress import duration
from vaelab.training.run import Run

_PATIENCE = 0.5  # seconds between two looks
_STILL = 300.0  # seconds without a line in its log after which a run is not under way
_GRACE = 60.0  # seconds that a worker has for its last step and checkpoint
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def default_jobs() -> int:
    """Return how many runs to train at once: small networks do not fill many cores each."""
    if torch.cuda.is_available():
        return 1
    return _cores() if _cores() <= 4 else _cores() // 4


def threads(jobs: int) -> int:
    """Return how many threads each of several runs at once should have."""
    return max(1, _cores() // jobs)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class State:
    """How far a study is.

    Arguments:
        done, failed, total: numbers of runs.
        running: each run under way, with the share of its steps that is done.
        seconds: since this call began.
        left: estimate of the seconds that are left; None before there is one.
        settled: runs settled since the last look.
    """

    done: int
    failed: int
    total: int
    running: tuple[tuple[Job, float], ...]
    seconds: float
    left: float | None
    settled: tuple[Job, ...]


def run_study(study: Study, jobs: int, each: int, tell: Callable[[State], None]) -> None:
    """Work on a study with ``jobs`` workers of ``each`` threads until every run is settled.

    Raises:
        RunError: all workers ended and runs are left.
        KeyboardInterrupt: after the workers saved what they were at.
    """
    plan = study.read_plan()
    every = study.jobs(plan)
    look = _Look(every)
    with _workers(study, min(jobs, len(every)), each) as processes:
        while True:
            ended = [process for process in processes if process.poll() is not None]
            state = look()
            tell(state)
            if len(ended) == len(processes):
                break
            time.sleep(_PATIENCE)
    left = [job for job in every if not job.settled]
    if left:
        codes = sorted({process.returncode for process in processes})
        raise RunError(
            f"{study}: {len(left)} of {len(every)} runs are left (workers ended with "
            f"{', '.join(map(str, codes))}). Go on with: vaelab study {study}"
        )


@contextmanager
def _workers(study: Study, jobs: int, each: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start workers that end when this process does, and stop them behind the context.

    Each holds the reading end of a pipe: it closes when its parent is gone, however it went.
    """
    environment = {**os.environ, **dict.fromkeys(THREADS, str(each))}
    # -P: modules come from the installation, never from the folder that one happens to be in
    command = [sys.executable, "-P", "-m", "vaelab.studies", str(study)]
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C comes from here, once
        )
        for _ in range(jobs)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            if process.stdin:
                process.stdin.close()


class _Look:
    """Reads from the folders how far the runs are."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)
        self.settled = {id(job) for job in jobs if job.settled}
        self.begun = time.monotonic()
        self.before = float(len(self.settled))

    def __call__(self) -> State:
        fresh = [job for job in self.jobs if id(job) not in self.settled and job.settled]
        self.settled |= {id(job) for job in fresh}
        running = []
        for job in self.jobs:
            if id(job) not in self.settled:
                part = share(job.run, job.case.config.training.epochs)
                if part is not None:
                    running.append((job, part))
        failed = sum(job.failure is not None for job in self.jobs if id(job) in self.settled)
        seconds = time.monotonic() - self.begun
        total = len(self.jobs)
        done = len(self.settled) + sum(part for _, part in running)
        gained = done - self.before
        left = seconds * (total - done) / gained if gained > 0.02 * total else None
        return State(
            len(self.settled) - failed, failed, total, tuple(running), seconds, left, tuple(fresh)
        )


def share(run: Run, epochs: int) -> float | None:
    """Return the share of a run's epochs that is done; None if it is not under way."""
    if not run.log_file.exists():
        return None
    if time.time() - run.log_file.stat().st_mtime > _STILL:
        return None
    last = files.last_entry(run.log_file)
    if last is None or last.get("kind") not in ("step", "epoch") or fault_of(last):
        return 0.0
    whole = last["epoch"] if last.get("kind") == "epoch" else last["epoch"] + 0.5
    return min(1.0, float(whole) / epochs) * 0.9  # the rest is measuring


def describe(state: State) -> str:
    """Return in a line how far a study is."""
    parts = [f"{state.done + state.failed} of {state.total} runs"]
    if state.failed:
        parts.append(f"{state.failed} failed")
    if state.left is not None:
        parts.append(f"{duration(state.left)} left")
    return ", ".join(parts)
