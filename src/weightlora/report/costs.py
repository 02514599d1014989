"""What a run cost before and after its decision, as far as its directory says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ..files import read_json
from ..run import RESULT
from ..selection import Selection
from ..values import is_number

Unit = Literal["count", "bytes", "seconds"]
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "\u00b5"))


@dataclass(frozen=True)
class Cost:
    """One line of the table.

    Attributes:
        name: What is measured.
        unit: Of the values.
        before: While the modules were selected; None if it is not known.
        after: Once the choice was made; None if it is not known.
    """

    name: str
    unit: Unit
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Outcome:
    """What the `result.json` of a command says, as far as it is there.

    Attributes:
        values: Its fields.
        metrics: Split -> metric -> value.
        versions: Package -> version.
        machine: The hardware.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    def is_of(self, selection: Selection) -> bool:
        """Whether it is of this choice, and not of an earlier run in the same directory."""
        kept = self.values.get("kept")
        if not isinstance(kept, list):
            return True
        return selection.final and {*map(str, kept)} == {module.name for module in selection.kept}


def read_outcome(directory: Path) -> Outcome:
    """Read `result.json`; a run without one has an empty outcome.

    Raises:
        DataError: If it is not JSON.
    """
    path = directory / RESULT
    values = read_json(path, "delete it, or give another run") if path.is_file() else {}
    if not isinstance(values, dict):
        return Outcome()
    return Outcome(
        values=values,
        metrics={
            str(split): {str(name): value for name, value in found.items() if _number(value) is not None}
            for split, found in _mapping(values.get("metrics")).items()
            if isinstance(found, dict)
        },
        versions={str(name): str(value) for name, value in _mapping(values.get("versions")).items()},
        machine=dict(_mapping(values.get("machine"))),
    )


def costs_of(selection: Selection, outcome: Outcome, log: Sequence[Mapping[str, Any]], decision: int) -> list[Cost]:
    """The lines of the table, without those of which nothing is known.

    Args:
        selection: The choice.
        outcome: What the command wrote.
        log: The entries of the log.
        decision: The step of the last decision.
    """
    measured = _mapping(_mapping(outcome.values.get("evidence")).get("columns"))
    first, last = (_mapping(measured.get(name)) for name in ("all", "kept"))
    values, parameters, final = outcome.values, selection.trainable_parameters, selection.final
    # after its first step, a run that chose before it has the state of the kept adapters alone
    state = first.get("optimizer_state_bytes", values.get("optimizer_state_bytes_before") if decision else None)
    step = _around(log, "seconds_per_step", decision, final)
    without = [entry for entry in log if entry["step"] != decision]  # at whose step adapters leave before it is logged
    if first:
        step = first.get("step_seconds"), last.get("step_seconds")
    lines: list[tuple[str, Unit, Any, Any]] = [
        ("adapters", "count", len(selection.modules), len(selection.kept)),
        ("adapter parameters", "count", parameters.get("before"), parameters.get("after")),
        (
            "trainable parameters, with the head",
            "count",
            values.get("trainable_parameters_before"),
            values.get("trainable_parameters_after"),
        ),
        ("optimizer state", "bytes", state, values.get("optimizer_state_bytes_after")),
        (
            "activations for backward",
            "bytes",
            first.get("saved_activation_bytes"),
            last.get("saved_activation_bytes"),
        ),
        ("GPU memory in use", "bytes", *_around(without, "gpu_bytes", decision, final)),
        ("step time, median", "seconds", *step),
    ]
    costs = [
        Cost(name, unit, _number(before), _number(after) if final else None) for name, unit, before, after in lines
    ]
    return [cost for cost in costs if (cost.before, cost.after) != (None, None)]


def amount(value: float | None, unit: Unit) -> str | None:
    """A value with its unit, such as `"1.3 MB"`; None stays None."""
    if value is None:
        return None
    if unit == "count":
        return f"{value:,.0f}"
    symbol = {"bytes": "B", "seconds": "s"}[unit]
    for factor, prefix in PREFIXES:
        if value >= 0.99995 * factor:  # 999,960 bytes are 1.0 MB, not 1000.0 kB
            return f"{value / factor:.1f} {prefix}{symbol}"
    return f"{value:g} {symbol}"


def _around(
    log: Sequence[Mapping[str, Any]], key: str, decision: int, final: bool
) -> tuple[float | None, float | None]:
    """The median of a number in the log until the decision, and after it."""
    found = [(entry["step"], value) for entry in log if (value := _number(entry.get(key))) is not None]
    before = [value for step, value in found if step <= decision or not final]
    after = [value for step, value in found if step > decision and final]
    return median(before) if before else None, median(after) if after else None


def _number(value: Any) -> float | None:
    return value if is_number(value) else None


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}
