"""A pool of processes: each run has its own process, several run at a time, and each reports its progress."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
STEP = re.compile(r"^step (\d+)/(\d+)$")
GRACE = 10.0
"""Seconds that a process has to end after it was told to."""


@dataclass(frozen=True)
class Process:
    """One run that is to be executed.

    Attributes:
        name: What it is called in messages.
        command: The command line.
        environment: Variables that win over those of this process.
        given: What it reads on stdin, where there is no limit as there is to a command line.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    given: str = ""


OnStep = Callable[[Process, int, int], None]
OnEnd = Callable[[Process, "float | None", "str | None"], None]


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has, inside a container or under `taskset`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(
    processes: Sequence[Process], jobs: int, on_end: OnEnd, on_step: OnStep | None = None
) -> list[tuple[Process, str]]:
    """Run every process, `jobs` at a time, with the cores of the machine divided among them.

    When this call is interrupted, or this process gets SIGTERM, the processes that still run are ended.

    Args:
        processes: What to run, in this order.
        jobs: Processes at a time.
        on_end: Called after each process with its seconds and None, or with None and the last line of its error.
        on_step: Called with 0 and 0 when a process starts, and with the step and the number of steps whenever the
            process reports them with `tell_progress`. It is called from other threads.

    Returns:
        The processes that failed, each with the last line that it printed on stderr.
    """
    failures: list[tuple[Process, str]] = []
    threads = max(1, usable_cores() // jobs)
    running = _Running()
    with terminable(), ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_execute_one, process, threads, running, on_step): process for process in processes}
        try:
            for future in as_completed(waiting):
                process, (seconds, error) = waiting[future], future.result()
                if error is not None:
                    failures.append((process, error))
                on_end(process, None if error else seconds, error)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            running.end()
            raise
    return failures


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise `SystemExit` at SIGTERM, which would else end this process alone, and none that it runs."""
    if threading.current_thread() is not threading.main_thread():  # others may not set a handler
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def tell_progress(step: int, steps: int) -> None:
    """Report the progress of this process to the one that runs it with `execute`."""
    print(f"step {step}/{steps}", flush=True)


class _Running:
    """The processes that run now, so that all of them can be ended."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock, self._ended = threading.Lock(), False

    def start(self, process: Process, environment: Mapping[str, str]) -> "subprocess.Popen[str] | None":
        with self._lock, tempfile.TemporaryFile("w+", encoding="utf-8") as given:
            if self._ended:
                return None
            given.write(process.given)
            given.seek(0)
            started = subprocess.Popen(
                list(process.command),
                env=dict(environment),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            self._processes.add(started)
            return started

    def forget(self, process: "subprocess.Popen[str]") -> None:
        with self._lock:
            self._processes.discard(process)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            processes = list(self._processes)
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def _execute_one(
    process: Process, threads: int, running: _Running, on_step: OnStep | None
) -> tuple[float, str | None]:
    environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(threads))
    environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore", **process.environment}
    began = time.perf_counter()
    try:
        started = running.start(process, environment)
    except OSError as error:
        return 0.0, f"the process cannot be started: {error}"
    if started is None:
        return 0.0, "interrupted"
    if on_step is not None:
        on_step(process, 0, 0)
    errors: list[str] = []
    assert started.stdout is not None and started.stderr is not None
    reader = threading.Thread(target=lambda: errors.extend(started.stderr or ()), daemon=True)
    reader.start()
    for line in started.stdout:
        if on_step is not None and (found := STEP.match(line.strip())):
            on_step(process, int(found[1]), int(found[2]))
    code = started.wait()
    reader.join()
    running.forget(started)
    if code:
        said = [line.strip() for line in errors if line.strip()]
        return 0.0, said[-1] if said else f"exit code {code}"
    return time.perf_counter() - began, None


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module with this Python."""
    return [sys.executable, "-m", module, *arguments]
