"""States that were edited and signed again: refused in one sentence, or followed as they are written."""

import copy
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import selections
import torch
from fuzzing import fuzz, outcome_of, texts, values
from hypothesis import given
from hypothesis import strategies as st
from models import batch, lora_bert, train
from runs import LOOP

from weightlora import WeightLora, WeightLoraConfig, restore
from weightlora.errors import WeightLoraError
from weightlora.state import STATE_FILE, State, _sha256

GATES = {"keep": 3, "select_steps": 4, "selection": "stoiht", "omega_lr": 2.0, "warmup_steps": 1}
RUNS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "credit in rounds, growing": (LOOP, (0, 1, 3, 5)),
    "gates": (GATES, (0, 1, 3, 5)),
    "chance": ({"keep": 3, "select_steps": 2, "selection": "random"}, (1, 3)),
    "gradient": ({"keep": 3, "selection": "gradient", "probe_batches": 2}, (1,)),
}
COLUMNS = ["names", "kinds", "sizes", "start_ranks", "omega", "scores", "ranks", "scalings"]
FIELDS = ["format", "config", "step_count", "round", "waiting", *COLUMNS]
KINDS = ["a value", "an entry", "a number", "a setting", "lists", "names", "of another state", "a field"]

States = dict[str, dict[int, dict[str, Any]]]


def start(run: str, state: dict[str, Any] | None = None, model: Any = None) -> tuple[Any, Any, WeightLora]:
    model, optimizer, selector = selections.start(model, **RUNS[run][0], state=state)
    if state is None and RUNS[run][0].get("selection") == "gradient":
        selector.probe([batch(0), batch(1)])
    return model, optimizer, selector


@cache
def states() -> States:
    """By run and step, what real runs saved."""
    found: States = {}
    for run, (_, steps) in RUNS.items():
        model, optimizer, selector = start(run)
        found[run] = {}
        for step in range(max(steps) + 1):
            if step in steps:
                found[run][step] = selector.state_dict()
            train(model, optimizer, selector, start=step)
    return found


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """A run, the kind of the edit, the state, and the edited one."""
    run = draw(st.sampled_from(sorted(RUNS)))
    before = states()[run][draw(st.sampled_from(RUNS[run][1]))]
    kind = draw(st.sampled_from(KINDS))
    state = json.loads(json.dumps(before))
    for _ in range(draw(st.integers(1, 2))):
        _edit(draw, kind, state)
    return run, f"state: {kind}", before, state


def _edit(draw: st.DrawFn, kind: str, state: dict[str, Any]) -> None:
    column = state.get(draw(st.sampled_from(COLUMNS)), [])
    place = draw(st.sampled_from(range(len(column)) if isinstance(column, list) else sorted(column))) if column else 0
    if kind == "a value":
        state[draw(st.sampled_from(FIELDS))] = draw(values)
    elif kind == "an entry" and column:
        column[place] = draw(values)
    elif kind == "a number":
        where, key = draw(st.sampled_from([(state, "step_count"), (state, "round"), (column, place)]))
        if where and type(where[key]) in (int, float):
            change: Callable[[Any], Any] = draw(st.sampled_from(NUDGES))
            where[key] = change(where[key])
    elif kind == "a setting" and isinstance(state.get("config"), dict):
        state["config"][draw(st.sampled_from(sorted(state["config"])) | texts)] = draw(values)
    elif kind == "lists" and isinstance(column, list) and column:
        how = draw(st.sampled_from(["leave out", "repeat", "turn", "swap", "copy"]))
        other = draw(st.sampled_from(range(len(column))))
        if how == "leave out":
            del column[place]
        elif how == "repeat":
            column.append(column[place])
        elif how == "turn":
            column.append(column.pop(0))
        elif how == "swap":
            column[place], column[other] = column[other], column[place]
        else:
            state[draw(st.sampled_from(COLUMNS))] = list(column)
    elif kind == "names" and state["names"]:
        names = state["names"]
        name = draw(st.sampled_from(names) | texts)
        if draw(st.booleans()):
            names[draw(st.sampled_from(range(len(names))))] = name
        else:
            state["waiting"] = [*state.get("waiting", []), name]
    elif kind == "of another state":
        other_run = states()[draw(st.sampled_from(sorted(RUNS)))]
        field = draw(st.sampled_from(FIELDS))
        state[field] = copy.deepcopy(other_run[draw(st.sampled_from(sorted(other_run)))][field])
    elif kind == "a field":
        if draw(st.booleans()):
            state.pop(draw(st.sampled_from(FIELDS)), None)
        else:
            state[draw(texts)] = draw(values)


NUDGES: list[Callable[[Any], Any]] = [
    lambda value: value + 1,
    lambda value: value - 1,
    lambda value: -value,
    lambda value: 2 * value,
    lambda value: value * (1 + 1e-12),
    float,
    int,
]


def write_signed(state: dict[str, Any], directory: Path) -> None:
    """As `write_state`, of anything that Python's JSON holds."""
    text = json.dumps(state, sort_keys=True)
    (directory / STATE_FILE).write_text(f'{{"sha256": "{_sha256(text)}", "versions": {{}}, "state": {text}}}')


def meaning(state: dict[str, Any]) -> State:
    """The state without settings that this version does not have, and with those that it has by default."""
    read = State.from_dict(state)
    known = {field.name for field in fields(WeightLoraConfig)}
    config = WeightLoraConfig(**{name: value for name, value in read.config.items() if name in known})
    return replace(read, config=asdict(config), waiting=[])  # they have left when the run goes on


def resume(run: str, directory: Path, model: Any) -> tuple[WeightLora, dict[str, Any]]:
    """Continue for three steps; returns the selection, and the state with which it began."""
    _, optimizer, selector = start(run, restore(model, directory), model)
    began = selector.state_dict()
    train(model, optimizer, selector, steps=3)
    return selector, began


@given(st.data())
@fuzz(60)
def test_edited_states_are_followed_as_written_or_refused(data: st.DataObject):
    run, kind, before, state = data.draw(edited())
    model = lora_bert()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    restored = []

    def go_on() -> tuple[WeightLora, dict[str, Any]]:
        restore(model, directory)
        restored.append(True)
        return resume(run, directory, model)

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_signed(state, directory)
        ended = outcome_of(go_on, kind, lambda result: result[1] != before)
    if ended is not None:
        selector, began = ended
        assert meaning(began) == meaning(state), "the run began as the state says, and not otherwise"
        assert selector.phase != "train" or len(selector.kept) <= 3
    elif not restored:
        assert model.state_dict().keys() == weights.keys(), "a refused state leaves the model as it was"
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_states_that_nobody_edited_are_followed(tmp_path: Path):
    """Bit for bit what `before` says: the fuzzer's harmless examples are harmless."""
    for run, steps in states().items():
        for state in steps.values():
            write_signed(state, tmp_path)
            try:
                assert resume(run, tmp_path, lora_bert())[1] == state
            except WeightLoraError as error:
                raise AssertionError(f"{run}: {error}") from error
