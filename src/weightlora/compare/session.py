"""Carry out a comparison: make the runs that have no result, first to choose learning rates, then at all seeds."""

from collections.abc import Sequence

from .comparison import Comparison
from .progress import Watcher
from .runner import Process, execute
from .runs import Run, read_results, set_aside
from .tuning import choose_rates, losses_by_rate
from .worker import process_of


def carry_out(comparison: Comparison, jobs: int, watcher: Watcher) -> list[tuple[Process, str]]:
    """Run what has no result yet.

    Args:
        comparison: The comparison. Its directory must be its own (`Comparison.claim`).
        jobs: Runs at a time.
        watcher: Is told of the progress.

    Returns:
        The runs that failed, each with the last line of its error.
    """
    tuning = comparison.tuning_runs()
    _tell_aside(watcher, tuning)
    rates, done = _rates(comparison, tuning), read_results(tuning)
    total = len(tuning) + len(comparison.methods) * comparison.seeds
    watcher.begin(len(done) + len(read_results(comparison.runs(rates))), total)
    failed = _execute(tuning, jobs, watcher)
    runs = comparison.runs(_rates(comparison, tuning))
    _tell_aside(watcher, runs)  # once all rates are chosen: a result at another rate than the best does not count
    return failed + _execute(runs, jobs, watcher)


def _tell_aside(watcher: Watcher, runs: Sequence[Run]) -> None:
    if moved := set_aside(runs):
        watcher.aside(moved)


def _rates(comparison: Comparison, tuning: Sequence[Run]) -> dict[str, float]:
    return choose_rates(comparison.rates, losses_by_rate(read_results(tuning)))


def _execute(runs: Sequence[Run], jobs: int, watcher: Watcher) -> list[tuple[Process, str]]:
    left = [process_of(run) for run in runs if not run.is_done()]
    return execute(left, jobs, watcher.end, watcher.step)
