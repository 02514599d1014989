"""What a saved state may hold: a type and bounds for each value, and the rules between them.

A checksum finds damage. These checks find what was edited and signed again. Bounds that only a model can give are in
`checkpoint.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from .budget import rounds_due
from .config import WeightLoraConfig
from .costs import Costs
from .errors import ConfigError, StateError
from .rules import RULES
from .wording import shown

MOST_STEPS = 2**40
MOST_ROUNDS = 100_000
MOST_PARAMETERS = 2**48  # of one adapter
LARGEST_NUMBER = 2.0**127  # gates and scalings act in float32
REMEDY = "resume from an untouched checkpoint."

Rule = tuple[Callable[[Any], bool], str]
"""Whether a value fits, and what fits, in words."""


def _integer(least: int, most: int) -> Rule:
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"


def or_none(rule: Rule) -> Rule:
    """The rule, for a value that may also be missing."""
    return lambda value: value is None or rule[0](value), f"{rule[1]}, or null"


NUMBER: Rule = (
    lambda value: type(value) in (int, float) and abs(value) <= LARGEST_NUMBER,
    "a finite number in the range of float32",
)
PRICE: Rule = (
    lambda value: type(value) in (int, float) and 0 <= value <= LARGEST_NUMBER,
    "a number that is not negative",
)
NAME: Rule = lambda value: isinstance(value, str) and bool(value), "a name"
SIZE = _integer(1, MOST_PARAMETERS)
COLUMNS: dict[str, Rule] = {
    "kinds": (lambda value: value in ("module", "parameter"), "'module' or 'parameter'"),
    "sizes": SIZE,
    "start_ranks": SIZE,
    "omega": NUMBER,
    "scores": NUMBER,
    "ranks": or_none(SIZE),
    "scalings": or_none(NUMBER),
}


def check_values(values: Mapping[str, Any]) -> None:
    """Raise a `StateError` unless the values of a state could have come from a run."""
    for name in ("names", *COLUMNS, "waiting"):
        check_kind(values, name, list)
    for name in ("step_count", "round"):
        check_kind(values, name, int)
    check_kind(values, "config", dict)
    names = values["names"]
    for column in COLUMNS:
        if len(values[column]) != len(names):
            raise StateError(
                f"the state's {column!r} has {len(values[column])} entries, and there are {len(names)} adapters: "
                f"{REMEDY}"
            )
    check_entries("names", names, NAME)
    check_entries("waiting", values["waiting"], NAME)
    for column, rule in COLUMNS.items():
        check_entries(column, values[column], rule)
    if not names or len(set(names)) < len(names):
        raise StateError(f"the state names {len(names)} adapters, {len(set(names))} of them different: {REMEDY}")
    config = _config_of(values["config"])
    _check_progress(values, config)
    _check_adapters(values, config)
    _check_budget(values, config)
    _check_costs(values.get("costs"), len(names), config)


def check_kind(values: Mapping[str, Any], name: str, kind: type) -> None:
    """Raise a `StateError` unless a value is of the given type."""
    value = values.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise StateError(f"the state's {name!r} is {shown(value)}, and must be of type {kind.__name__}: {REMEDY}")


def check_entries(column: str, entries: list[Any], rule: Rule) -> None:
    """Raise a `StateError` unless every entry of a list fits the rule."""
    fits, what = rule
    for place, entry in enumerate(entries):
        if not fits(entry):
            raise StateError(
                f"entry {place} of the state's {column!r} is {shown(entry)}, and must be {what}: {REMEDY}"
            )


def _config_of(settings: dict[str, Any]) -> WeightLoraConfig:
    """The settings of the state; those that this version does not have are left out."""
    known = {field.name for field in dataclasses.fields(WeightLoraConfig)}
    adapter_name = settings.get("adapter_name")
    for name, value, (fits, what) in (
        ("select_steps", settings.get("select_steps"), _integer(0, MOST_STEPS)),
        ("rounds", settings.get("rounds", 1), _integer(1, MOST_ROUNDS)),
        ("adapter_name", adapter_name, or_none(NAME)),
    ):
        if not fits(value):
            raise StateError(f"the state's config has {name}={shown(value)}, and it must be {what}: {REMEDY}")
    try:
        return WeightLoraConfig(**{name: value for name, value in settings.items() if name in known})
    except (ConfigError, TypeError, ArithmeticError) as error:
        raise StateError(f"the state's config is not valid ({str(error)[:300]}): {REMEDY}") from error


def _check_progress(values: Mapping[str, Any], config: WeightLoraConfig) -> None:
    """The steps are within the selection, and the round is that of the step, or the last if the run ended early."""
    steps, begun, over = config.steps, values["step_count"], values["round"]
    if not 0 <= begun <= steps:
        raise StateError(f"the state's step_count is {begun}, and the selection has {steps} steps: {REMEDY}")
    fits, what = _integer(0, begun)
    if not fits(values.get("carried", 0)):
        raise StateError(f"the state's carried is {shown(values['carried'])}, and must be {what}: {REMEDY}")
    due = rounds_due(begun, config.warmup_steps, steps, config.rounds) if steps else 0  # a choice before any step
    if over not in (due, config.rounds):
        raise StateError(
            f"the state's round is {over}, and {due} of {config.rounds} are over after {begun} steps: {REMEDY}"
        )


def _check_adapters(values: Mapping[str, Any], config: WeightLoraConfig) -> None:
    """Each adapter is there, with a rank and a scaling, or gone; gates and ranks are those that the settings allow."""
    over, names = values["round"], values["names"]
    gates = RULES[config.selection].has_gates and (over > 0 or values["step_count"] > config.warmup_steps)
    grows = config.expand != "none" and over > 0
    columns = zip(*(values[name] for name in ("names", "start_ranks", "ranks", "scalings", "omega")), strict=True)
    for name, start, rank, scaling, omega in columns:
        if (rank is None) != (scaling is None) or (rank is None and (over == 0 or omega)):
            raise StateError(
                f"the state has adapter {name!r} with rank {rank}, scaling {scaling} and gate {omega} after {over} "
                f"rounds, and they do not go together: {REMEDY}"
            )
        if rank is None:
            continue
        if rank < start or (rank > start and not grows):
            raise StateError(
                f"the state has adapter {name!r} with rank {rank} after it began with {start}, and expand is "
                f"{config.expand!r}: {REMEDY}"
            )
        if omega != 1 and not gates:
            raise StateError(f"the state has adapter {name!r} with gate {omega}, and no gate has moved yet: {REMEDY}")
    gone = {name for name, rank in zip(names, values["ranks"], strict=True) if rank is None}
    if strange := sorted(set(values["waiting"]) - gone):
        raise StateError(f"the state has {strange[0]!r} among those that wait to leave, and it has not lost: {REMEDY}")


def _check_budget(values: Mapping[str, Any], config: WeightLoraConfig) -> None:
    """As many adapters are left as the budget of the round keeps."""
    sizes, over = values["sizes"], values["round"]
    left = [size for size, rank in zip(sizes, values["ranks"], strict=True) if rank is not None]
    number, most = len(sizes), sum(sizes)
    if over:
        try:
            given, most = config.budget_for(sizes).rounds[over - 1]
        except ConfigError as error:
            raise StateError(f"the state's config does not fit its adapters ({error}): {REMEDY}") from error
        number = len(left) if given is None else given
    exact = not RULES[config.selection].has_gates
    if not left or len(left) > number or (exact and len(left) < number) or sum(left) > most:
        raise StateError(
            f"the state has {len(left)} adapters with {sum(left)} parameters after {over} rounds, and the budget is "
            f"{number} with {most}: {REMEDY}"
        )


def _check_costs(costs: Any, adapters: int, config: WeightLoraConfig) -> None:
    """What steps cost is there only where it bounds the choice, and has a price for each adapter and each group."""
    if costs is None:
        return
    if not isinstance(costs, dict) or set(costs) != {field.name for field in dataclasses.fields(Costs)}:
        raise StateError(f"the state's 'costs' is {shown(costs)}, and must be the costs of a step, or null: {REMEDY}")
    if config.resource is None or costs["resource"] != config.resource:
        raise StateError(
            f"the state has the costs of {shown(costs['resource'])}, and its config bounds {config.resource}: {REMEDY}"
        )
    for name in ("groups", "depth", "shared", "own", "passing", "blocks"):
        check_kind(costs, name, list)
    groups, depth = costs["groups"], costs["depth"]
    check_entries("groups", groups, _integer(0, max(0, len(depth) - 1)))
    for name in ("depth", "shared", "own", "passing"):
        check_entries(name, costs[name], PRICE)
    check_entries("whole", [costs["whole"]], PRICE)
    check_entries("blocks", costs["blocks"], _integer(0, adapters - 1))
    fits = len(groups) == len(costs["own"]) == adapters and len(costs["shared"]) == len(depth)
    fits = fits and len(costs["passing"]) == len(costs["blocks"]) and len(costs["blocks"]) in (0, adapters)
    if not fits or set(groups) != set(range(len(depth))) or depth != sorted(depth):
        raise StateError(f"the state's costs do not fit its {adapters} adapters: {REMEDY}")
