"""A budget of time or memory in a run: measured before the first step, kept by the choice, carried by the state."""

import copy
import json
from functools import cache

import pytest
import torch
from models import adamw, batch, lora_bert, train
from peft import LoraConfig, get_peft_model
from torch import nn

from weightlora import WeightLora, WeightLoraConfig, select
from weightlora.costs.limit import LOOKED_AT
from weightlora.errors import ConfigError, DataError, TrainingError
from weightlora.measure import saved_activation_bytes
from weightlora.report import read_run, render_page
from weightlora.report.pictures import figures_of
from weightlora.selection import Selection

LOADER = [batch(step, size=24) for step in range(4)]


@cache
def whole() -> float:
    """The peak of a step with all adapters, as it is measured."""
    selector = run(keep_memory="1GiB")
    assert selector.limit is not None and selector.limit.costs is not None
    return selector.limit.costs.whole


def run(probe: bool = True, **settings) -> WeightLora:
    model = lora_bert()
    settings = {"selection": "random", "select_steps": 0} | settings
    selector = WeightLora(model, adamw(model), WeightLoraConfig(**settings))
    if probe:
        selector.probe(LOADER)
    return selector


def test_batches_may_be_tensors_of_which_the_largest_is_measured():
    model = get_peft_model(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1)), LoraConfig(target_modules=["0", "1"]))
    selector, seen = WeightLora(model, adamw(model), WeightLoraConfig(keep_memory="1GiB", select_steps=2)), set()
    selector.probe([torch.randn(rows, 8) for rows in (2, 5, 3)], loss=lambda x: seen.add(len(x)) or model(x).mean())
    assert seen == {5} and selector.limit.costs is not None


def test_with_checkpointing_steps_cost_what_they_do_after_the_choice():
    model = lora_bert(4)
    model.get_base_model().gradient_checkpointing_enable()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    selector = WeightLora(
        model, adamw(model), WeightLoraConfig(keep_memory="1GiB", selection="random", select_steps=2)
    )
    selector.probe(LOADER)
    depth = selector.limit.costs.depth
    assert depth[0] < depth[-1], "backward does not go on to the embeddings"
    assert hooks == [len(module._forward_hooks) for module in model.modules()] and sum(hooks) == 1


def test_a_loss_may_take_the_labels_out_of_batches_that_are_read_again():
    model, batches = lora_bert(), [batch(step) for step in range(4)]
    selector = WeightLora(model, adamw(model), WeightLoraConfig(keep_memory="1GiB"))

    def loss(inputs):
        labels = inputs.pop("labels")
        return nn.functional.cross_entropy(model(**inputs).logits, labels)

    selector.probe(batches, loss)
    assert selector.phase == "train" and all("labels" in one for one in batches)


@pytest.mark.parametrize(
    "settings", [{}, {"selection": "gradient"}, {"keep": 3}, {"selection": "gradient", "keep": 4}]
)
def test_a_choice_before_the_first_step_is_within_the_budget(settings):
    selector = run(keep_memory=int(0.75 * whole()), **settings)
    assert selector.phase == "train" and selector.limit is not None and selector.limit.costs is not None
    costs, mask = selector.limit.costs, [name in selector.ranks for name in selector.names]
    assert costs.predict(mask) <= 0.75 * costs.whole
    assert sum(mask) == settings.get("keep", sum(mask)) and 0 < sum(mask) < 12
    assert saved_activation_bytes(selector.model, LOADER[0]) < saved_activation_bytes(lora_bert(), LOADER[0])


@pytest.mark.parametrize("selection", ["credit", "stoiht"])
def test_a_choice_while_training_needs_the_measurement_before_the_first_step(selection):
    amount = int(0.75 * whole())
    selector = run(probe=False, keep_memory=amount, selection=selection, select_steps=4)
    assert selector.needs_probe
    with pytest.raises(
        TrainingError, match=r"^keep_memory needs to know what steps cost: call probe\(batches\) before"
    ):
        train(selector.model, selector.optimizer, selector, steps=1)
    selector = run(keep_memory=amount, selection=selection, select_steps=4)
    assert not selector.needs_probe and selector.phase == "select"
    train(selector.model, selector.optimizer, selector, steps=5)
    assert selector.limit is not None and selector.limit.costs is not None and 0 < len(selector.kept) < 12
    assert selector.limit.costs.predict([name in selector.ranks for name in selector.names]) <= amount


def test_a_run_records_what_the_choice_costs_and_what_other_budgets_would_buy(tmp_path):
    amount = int(0.75 * whole())
    model = lora_bert()
    config = WeightLoraConfig(keep_memory=amount, selection="gradient")
    selector = WeightLora(model, adamw(model), config, run_dir=tmp_path)
    assert "costs" not in json.loads((tmp_path / "selection.json").read_text())
    selector.probe(LOADER)
    values = json.loads((tmp_path / "selection.json").read_text())
    costs = values["costs"]
    assert costs["resource"] == "memory"
    assert costs["score"] == pytest.approx(sum(row["score"] for row in values["adapters"] if row["kept"]))
    assert costs["budget"] == amount and costs["predicted"] <= amount < costs["whole"] == whole()
    chosen = Selection.load(tmp_path)
    assert chosen.costs == costs and chosen.cost_in_words() in str(chosen.summary().text)
    assert chosen.cost_in_words() in selector.summary().text
    report = read_run(tmp_path)
    budgets = report.frontier()
    assert budgets is not None and budgets["budget"] == amount / 2**30 and len(budgets["points"]) > 3
    assert {"selection", "frontier"} <= figures_of(report).keys()
    assert json.loads(json.dumps(report.to_dict()))["budget"] == costs
    page = render_page([report])
    assert "What each budget buys" in page and chosen.cost_in_words() in page


def test_costs_that_no_run_wrote_are_refused(tmp_path):
    model = lora_bert()
    selector = WeightLora(
        model, adamw(model), WeightLoraConfig(keep_memory="1GiB", selection="gradient"), run_dir=tmp_path
    )
    selector.probe(LOADER)
    values = json.loads((tmp_path / "selection.json").read_text())
    for key, wrong in (("resource", "money"), ("whole", 0), ("budget", None), ("frontier", [{"cost": 1}])):
        (tmp_path / "selection.json").write_text(json.dumps({**values, "costs": {**values["costs"], key: wrong}}))
        with pytest.raises(DataError, match=r"has .* as 'costs', and needs the costs of a choice, or null"):
            Selection.load(tmp_path)


def test_the_state_carries_what_was_measured():
    amount = int(0.75 * whole())
    first = run(keep_memory=amount, selection="credit", select_steps=6)
    train(first.model, first.optimizer, first, steps=3)
    state = json.loads(json.dumps(first.state_dict()))
    model = lora_bert()
    model.load_state_dict(first.model.state_dict())
    optimizer = adamw(model)
    optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))  # or they would share the moments
    second = WeightLora(model, optimizer, first.config, state)
    assert not second.needs_probe and second.limit.costs == first.limit.costs
    for selector in (first, second):
        train(selector.model, selector.optimizer, selector, steps=4, start=3)
    assert first.kept == second.kept and first.phase == "train"


def test_the_largest_of_the_first_batches_is_measured():
    seen = []

    def loss(one):
        seen.append(len(one["labels"]))
        return selector.model(**one).loss

    selector = run(probe=False, keep_memory="1GiB")
    selector.probe([batch(size=size) for size in (2, 7, 3, 5, 9)], loss)
    assert LOOKED_AT == 4 and set(seen) == {7}


def test_batches_that_only_the_probe_reads_are_not_measured():
    seen = []

    def loss(one):
        seen.append(len(one["labels"]))
        return selector.model(**one).loss

    selector = run(probe=False, keep_memory="1GiB", selection="gradient", probe_batches=6)
    selector.probe([batch(size=size) for size in (2, 7, 3, 5, 9, 4)], loss)
    assert seen.count(7) > 1 and seen.count(9) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"keep_memory": "1KiB"},
            r"^keep_memory='1KiB' is too small: a step with one adapter takes \d+ KiB\. Raise it\.$",
        ),
        (
            {"keep_memory": "1KiB", "keep": 5},
            r"^keep_memory='1KiB' is too small: a step with the 5 adapters that cost least takes .*, or keep fewer\.$",
        ),
    ],
)
def test_a_budget_below_what_adapters_cost(settings, message):
    with pytest.raises(ConfigError, match=message):
        run(**settings)


def test_no_batch_no_loss_and_a_compiled_model():
    with pytest.raises(DataError, match=r"^keep_memory got no batch to measure a step with: give at least one\.$"):
        run(probe=False, keep_memory="1GiB").probe([])
    with pytest.raises(DataError, match=r"^the batch that is measured gave no loss"):
        run(probe=False, keep_memory="1GiB").probe([{"input_ids": LOADER[0]["input_ids"]}])
    model = torch.compile(lora_bert(), backend="eager")
    with pytest.raises(
        ConfigError, match=r"^keep_step_time measures steps in one process, without torch.compile: choose"
    ):
        WeightLora(model, adamw(model), WeightLoraConfig(keep_step_time=0.5, select_steps=2))
    model = lora_bert()
    model.base_model.model.bert.encoder.layer[1].compile(backend="eager")
    with pytest.raises(ConfigError, match=r"in one process, without torch.compile"):
        WeightLora(model, adamw(model), WeightLoraConfig(keep_memory="1GiB", select_steps=2))


@pytest.mark.parametrize("selection", ["gradient", "credit"])
def test_select_takes_a_budget_and_leaves_the_model(selection):
    model = lora_bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps = {} if selection == "gradient" else {"select_steps": 3}
    config = WeightLoraConfig(keep_memory=int(0.75 * whole()), selection=selection, **steps)
    choice = select(model, LOADER, config)
    assert 0 < len(choice.target_modules) < 12
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(
        ConfigError, match=r"^seeds=2 is decided by numbers of modules and parameters: set keep_parameters"
    ):
        select(model, LOADER, config, seeds=2)
