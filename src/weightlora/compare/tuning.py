"""Choose the learning rate of each method on the validation split."""

import math
from collections.abc import Iterable, Mapping, Sequence

from ..train.result import Result
from .runs import Run


def losses_by_rate(results: Iterable[tuple[Run, Result]]) -> dict[str, dict[float, float]]:
    """Method -> rate -> held-out loss on the validation split, the rates in ascending order."""
    found: dict[str, dict[float, float]] = {}
    for run, result in results:
        found.setdefault(run.method, {})[run.rate] = result.held_out_loss
    return {method: dict(sorted(losses.items())) for method, losses in found.items()}


def choose_rates(
    grids: Mapping[str, Sequence[float]], losses: Mapping[str, Mapping[float, float]]
) -> dict[str, float]:
    """Method -> the rate with the lowest loss, the lower rate of two that are equal.

    A method with one rate gets that rate. A method without any finite loss is left out.
    """
    chosen = {}
    for method, rates in grids.items():
        finite = [(loss, rate) for rate, loss in losses.get(method, {}).items() if math.isfinite(loss)]
        if len(rates) == 1:
            chosen[method] = rates[0]
        elif finite:
            _, chosen[method] = min(finite)
    return chosen


def remarks_on_rates(grids: Mapping[str, Sequence[float]], chosen: Mapping[str, float]) -> list[str]:
    """What a reader has to know about the learning rates, one sentence each."""
    remarks = []
    for end, extreme, beyond in ((min, "lowest", "lower"), (max, "highest", "higher")):
        at_end = [name for name, rates in grids.items() if len(rates) > 1 and chosen.get(name) == end(rates)]
        if at_end:
            remarks.append(
                f"The best learning rate of {', '.join(at_end)} is the {extreme} that was tried: {beyond} ones may be "
                "better."
            )
    single = {name: rates[0] for name, rates in grids.items() if len(rates) == 1}
    if len(single) > 1 and len(set(single.values())) == 1:
        remarks.append(
            f"All methods ran at the learning rate {next(iter(single.values())):g}. Another rate may rank them "
            "differently: --learning_rates chooses one for each method."
        )
    return remarks
