"""The state file: whole, unedited and of this model, or refused with a sentence."""

import copy
import cProfile
import json
from dataclasses import asdict
from importlib.metadata import version

import pytest
import torch
from models import adamw, lora_bert, train
from peft import LoraConfig, get_peft_model
from runs import LOOP, run_loop
from selections import start
from torch import nn

from weightlora import WeightLora, WeightLoraConfig, restore
from weightlora.adapters import find_adapters
from weightlora.errors import StateError
from weightlora.state import STATE_FILE, State, check_config, read_state, write_state


@pytest.fixture(scope="module")
def states():
    """Of a run in two rounds: in the first one, in the second one, and at the end."""
    return {steps: run_loop(steps)[1].state_dict() for steps in (1, 3, 5)}


def test_what_is_written_is_read(tmp_path, states):
    assert write_state(states[3], tmp_path / "new").name == STATE_FILE
    assert read_state(tmp_path / "new") == states[3]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [STATE_FILE], "nothing else is left"


def test_the_file_holds_all_that_the_decision_depends_on(tmp_path):
    """Phase, step, gates, evidence, rng, kept names, ranks, scalings and versions: after the first of two rounds."""
    model, selector = run_loop(3)
    content = json.loads(write_state(selector.state_dict(), tmp_path).read_text())
    assert content.keys() == {"sha256", "state", "versions"}
    assert content["versions"] == {name: version(name) for name in ("weightlora", "torch", "peft")}
    state = content["state"]
    assert state["step_count"] == 3 and state["round"] == 1  # with the config that is the phase
    assert state["config"] == asdict(WeightLoraConfig(**LOOP))  # the seed is all there is of rng
    assert state["names"] == selector.names and len(set(state["scores"])) == 12
    assert state["scores"] == list(selector.scores.values())
    assert state["omega"] == [float(name in selector.kept) for name in selector.names]
    on_model = find_adapters(model)
    live = State.from_dict(state).live
    assert list(live) == selector.kept == [adapter.name for adapter in on_model] and len(on_model) == 6
    assert live == {adapter.name: (adapter.rank, adapter.scaling) for adapter in on_model}
    assert state["start_ranks"] == [4] * 12 and min(rank for rank, _ in live.values()) > 4
    assert "history" not in state


@pytest.mark.parametrize("selection", ["credit", "stoiht", "random"])
def test_no_generator_but_our_own_has_a_part_in_the_decision(tmp_path, selection):
    """Resumed under another global seed, the second round keeps and draws what it would have."""
    settings = LOOP | {"selection": selection, "expand": "random"}
    ends = []
    for resume in (False, True):
        model, optimizer, selector = start(**settings)
        train(model, optimizer, selector, steps=3)
        if resume:
            write_state(selector.state_dict(), tmp_path)
            weights, moments = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
            model = lora_bert()
            state = restore(model, tmp_path)
            torch.manual_seed(1234)
            model, optimizer, selector = start(model, **settings, state=state)
            model.load_state_dict(weights)
            optimizer.load_state_dict(moments)
        train(model, optimizer, selector, steps=3, start=3)
        ends.append((selector.state_dict(), model.state_dict()))
    assert ends[0][0] == ends[1][0] and selector.phase == "train" and len(selector.kept) == 3
    assert all(torch.equal(value, ends[1][1][name]) for name, value in ends[0][1].items())


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def newer(content):
    content["state"]["format"] = 99
    content["sha256"] = "?"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "is missing, so this checkpoint is not from a WeightLoRA run"),
        (lambda path: path.write_text(path.read_text()[:500]), "is not a whole state file"),
        (lambda path: path.write_text("[]"), "is not a whole state file"),
        (lambda path: path.write_text(""), "is not a whole state file"),
        (lambda path: edit(path, lambda c: c["state"].update(step_count=2)), "was changed after it was written"),
        (lambda path: edit(path, lambda c: c["state"]["ranks"].pop()), "was changed after it was written"),
        (lambda path: edit(path, newer), "was changed after it was written"),
    ],
)
def test_a_damaged_state_is_refused_and_the_model_untouched(tmp_path, states, spoil, message):
    spoil(write_state(states[3], tmp_path))
    model = lora_bert()
    with pytest.raises(ValueError, match=message):
        restore(model, tmp_path)
    assert len(find_adapters(model)) == 12


def test_a_state_of_a_newer_version_says_so(tmp_path, states):
    write_state(states[1] | {"format": 99}, tmp_path)
    with pytest.raises(ValueError, match="format 99, and this version reads 3: update weightlora"):
        restore(lora_bert(), tmp_path)


def test_a_failed_write_leaves_the_earlier_state(tmp_path, monkeypatch, states):
    write_state(states[3], tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_state(states[5], tmp_path)
    assert read_state(tmp_path) == states[3]
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def many(n: int) -> State:
    names = [f"base_model.model.model.layers.{i // 7}.self_attn.some_projection_{i % 7}" for i in range(n)]
    floats = torch.rand(n, dtype=torch.float64).tolist()
    return State(
        config=asdict(WeightLoraConfig(keep=3, select_steps=4)),
        names=names,
        kinds=["module"] * n,
        sizes=[65536] * n,
        start_ranks=[8] * n,
        step_count=2000,
        round=0,
        omega=[1.0] * n,
        scores=floats,
        ranks=[8] * n,
        scalings=[4.0] * n,
        waiting=[],
    )


def test_the_state_grows_with_the_adapters_and_not_with_the_steps(tmp_path):
    path = write_state(many(2000).to_dict(), tmp_path)
    assert path.stat().st_size < 1e6
    model, optimizer, selector = start(keep=3, select_steps=50)
    sizes = []
    for step in range(1, 31):
        train(model, optimizer, selector, start=step)
        sizes.append(len(json.dumps(selector.state_dict() | {"scores": [], "step_count": 0})))
    assert len(set(sizes)) == 1


def test_a_list_that_is_too_short_is_refused():
    with pytest.raises(StateError, match="the state's 'omega' has 1 entries, and there are 3 adapters"):
        State.from_dict(many(3).to_dict() | {"omega": [1.0]})


NONSENSE = [None, True, -1, 10**18, 1e300, 10**400, 0.5, 1e308, "", "x", [], [1], {}]


@pytest.mark.parametrize("field", ["names", "kinds", "sizes", "start_ranks", "omega", "scores", "ranks", "scalings"])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_no_entry_of_a_column_may_be_of_another_type_or_out_of_bounds(tmp_path, states, field, steps):
    for place in (0, -1):
        for value in NONSENSE:
            state = copy.deepcopy(states[steps])
            if state[field][place] is value or value == state[field][place]:
                continue
            number = type(value) in (int, float) and value < 1e38  # only a model bounds scalings, and nothing scores
            there = state["ranks"][place] is not None
            fits = (number and (field == "scores" or (field == "scalings" and there))) or (field, value) == (
                "names",
                "x",
            )
            state[field][place] = value
            if fits:
                State.from_dict(state)
            else:
                with pytest.raises(StateError):
                    State.from_dict(state)


@pytest.mark.parametrize("value", [*NONSENSE, 7])
@pytest.mark.parametrize("field", ["format", "config", "names", "sizes", "step_count", "round", "scores", "waiting"])
def test_no_field_may_be_of_another_type_or_out_of_bounds(states, field, value):
    same = field == "waiting" and value == []
    for steps in () if same else (1, 3, 5):
        with pytest.raises(StateError):
            State.from_dict(states[steps] | {field: value})
    for steps in (1, 3, 5):
        without = {key: kept for key, kept in states[steps].items() if key != field}
        with pytest.raises(StateError):
            State.from_dict(without)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select_steps": None}, "select_steps=None, and it must be a whole number"),
        ({"select_steps": 0.5}, "select_steps=0.5, and it must be a whole number"),
        ({"keep": 10**18}, "does not fit its adapters .* more than the model's 12"),
        ({"keep": []}, "is not valid"),
        ({"omega_lr": 10**400}, "is not valid"),
        ({"adapter_name": ["default"]}, "adapter_name=.*, and it must be a name"),
        ({"selection": {}}, "is not valid"),
        ({"keep": 4}, "has 6 adapters with .* after 1 rounds, and the budget is 7"),
        ({"rounds": 1}, "has 6 adapters with .* after 1 rounds, and the budget is 3"),
        ({"expand": "none"}, "after it began with 4, and expand is 'none'"),
    ],
)
def test_the_settings_in_a_state_are_checked_as_settings_are(states, settings, message):
    with pytest.raises(StateError, match=message):
        State.from_dict(states[3] | {"config": states[3]["config"] | settings})


@pytest.mark.parametrize(
    ("steps", "changes", "message"),
    [
        (3, {"round": -1}, "round is -1, and 1 of 2 are over after 3 steps"),
        (3, {"round": 0}, "round is 0, and 1 of 2"),
        (5, {"round": 1}, "round is 1, and 2 of 2"),
        (3, {"step_count": 10**18}, "step_count is 1000000000000000000, and the selection has 4 steps"),
        (3, {"step_count": -1}, "step_count is -1, and the selection has 4 steps"),
        (3, {"step_count": 1}, "round is 1, and 0 of 2"),
        (3, {"carried": 4}, "carried is 4, and must be a whole number from 0 to 3"),
        (3, {"carried": True}, "carried is True, and must be a whole number"),
        (1, {"ranks": [10**7] * 12}, "rank 10000000 after it began with 4"),
        (1, {"names": ["x"] * 12}, "names 12 adapters, 1 of them different"),
        (1, {"waiting": ["x"]}, "'x' among those that wait to leave, and it has not lost"),
        (1, {"omega": [0.5] * 12}, "gate 0.5, and no gate has moved yet"),
        (3, {"ranks": [4] * 12}, "rank 4, scaling None"),
        (1, {"ranks": [4] * 11 + [None], "scalings": [2.0] * 11 + [None]}, "they do not go together"),
    ],
)
def test_what_no_run_can_have_is_refused(states, steps, changes, message):
    with pytest.raises(StateError, match=message):
        State.from_dict(states[steps] | changes)


@pytest.mark.parametrize("content", ["[" * 100_000, "NaN", "\ud800", '{"state": [], "sha256": ""}', "1" * 5000])
def test_a_state_file_of_anything_is_refused(tmp_path, content):
    (tmp_path / STATE_FILE).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(StateError):
        read_state(tmp_path)


def test_a_state_that_is_no_dict_is_refused():
    for value in (None, [], "x", 3):
        with pytest.raises(StateError, match="and must be a dict"):
            State.from_dict(value)


def test_the_time_to_take_a_state_grows_like_the_number_of_adapters():
    """By function calls, for times decide no test."""
    calls = []
    for n in (60, 240):
        base = nn.Sequential(*(nn.Linear(2, 2) for _ in range(n)))
        model = get_peft_model(base, LoraConfig(r=1, target_modules=[str(place) for place in range(n)]))
        selector = WeightLora(model, adamw(model), WeightLoraConfig(keep=3, select_steps=40))
        profile = cProfile.Profile()
        profile.runcall(selector.state_dict)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
    assert calls[1] < 5 * calls[0]


def test_a_fraction_of_the_steps_fits_any_number_and_every_other_setting_must_be_the_same():
    state = many(3)
    check_config(state, WeightLoraConfig(keep=3, select_steps=4))
    check_config(state, WeightLoraConfig(keep=3, select_steps=0.5))
    for settings in ({"select_steps": 5}, {"select_steps": 0.5, "seed": 1}):
        name, value = list(settings.items())[-1]
        with pytest.raises(StateError, match=f"the state was saved with {name}=.*, and the config says {value}"):
            check_config(state, WeightLoraConfig(**{"keep": 3} | settings))


def test_a_number_that_json_does_not_have_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_state(many(1).to_dict() | {"scores": [float("nan")]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_state_from_before_trainings_began_again_carries_no_steps():
    for steps in (0, 3):
        state = {name: value for name, value in run_loop(steps)[1].state_dict().items() if name != "carried"}
        assert State.from_dict(state).carried == 0


def test_a_run_that_has_not_begun_has_seen_nothing():
    adapters = find_adapters(lora_bert())
    state = State.at_start(WeightLoraConfig(keep=3), adapters)
    assert (state.step_count, state.round, state.waiting, state.costs) == (0, 0, [], None)
    assert state.omega == [1.0] * 12 and state.scores == [0.0] * 12
    assert state.names == [adapter.name for adapter in adapters] and state.kinds == ["module"] * 12
    assert state.sizes == [adapter.size for adapter in adapters]
    assert state.ranks == state.start_ranks == [4] * 12 and state.scalings == [2.0] * 12


def test_a_whole_file_with_a_state_that_no_run_can_have_is_not_read(tmp_path):
    """Its checksum is right."""
    write_state({"format": 1}, tmp_path)
    with pytest.raises(StateError, match="the state has format 1, and this version reads"):
        read_state(tmp_path)
