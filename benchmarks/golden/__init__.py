"""Golden runs: short runs of every workload and method, with the results that commit 9e5ca01 gave.

Each `<case>.json` here is such a result. Its settings and its seed define the case. Code that computes the same gives
the same figures on the same kind of processor, to the last digit.
"""

from collections.abc import Sequence
from pathlib import Path

from weightlora.errors import ConfigError
from weightlora.train.result import Result, read_result
from weightlora.wording import shortened

from ..experiments import Run

__all__ = ["FIELDS", "differences", "golden_cases", "plan_golden"]

PLACE = Path(__file__).parent
FIELDS = ("metric", "metrics", "names", "sizes", "kept", "adapter_parameters_before", "adapter_parameters_after")
LORA_FIELDS = ("adapters_before", "adapters_after")
"""At 9e5ca01, these were 0 for every method but LoRA."""


def golden_cases() -> list[str]:
    """Names of all cases."""
    return sorted(path.stem for path in PLACE.glob("*.json"))


def plan_golden(directory: Path, cases: Sequence[str] | None = None) -> dict[str, Run]:
    """The runs of the cases, with their results in a directory.

    Raises:
        ConfigError: A case is unknown.
    """
    for case in cases or ():
        if case not in golden_cases():
            raise ConfigError(f"golden case {case!r} is unknown: choose from {', '.join(golden_cases())}.")
    runs = {}
    for case in cases or golden_cases():
        stored = read_result(PLACE / f"{case}.json")
        runs[case] = Run(stored.settings, stored.seed, directory / f"{case}.json")
    return runs


def differences(case: str, result: Result) -> list[str]:
    """Every figure of a result that differs from the stored one, one sentence each."""
    stored = read_result(PLACE / f"{case}.json")
    fields = FIELDS if stored.names is None else (*FIELDS, *LORA_FIELDS)
    pairs = ((field, getattr(stored, field), getattr(result, field)) for field in (*fields, "evidence"))
    return [
        f"{field} was {shortened(repr(one))} and is {shortened(repr(other))}"
        for field, one, other in pairs
        if one != other
    ]
