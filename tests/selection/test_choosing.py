"""`weightlora.select`: the choice of a training by hand, and a model that is as it was."""

import random
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import BERT_TARGETS, adamw, batch, lora_bert, lora_mixtral, tiny_bert, tiny_llama, train
from peft import LoraConfig, get_peft_model
from snapshots import changes, snapshot
from torch import nn
from torch.utils.data import DataLoader

import weightlora
from weightlora import Selection, WeightLora, WeightLoraConfig
from weightlora.errors import ConfigError, DataError, ModelError, TrainingError
from weightlora.selection import choosing

pytestmark = pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
BATCHES = [batch(step) for step in range(3)]
NAN = [{"inputs_embeds": torch.full((8, 10, 16), torch.nan), "labels": BATCHES[0]["labels"]}]
RULES = {
    "credit": {"select_steps": 4},
    "stoiht": {"selection": "stoiht", "select_steps": 4, "omega_lr": 0.1},
    "gradient": {"selection": "gradient", "probe_batches": 2},
    "random": {"selection": "random"},
    "rounds": {"select_steps": 4, "rounds": 2, "expand": "qr"},
}


def config(rule: str = "credit", **settings) -> WeightLoraConfig:
    return WeightLoraConfig(**{"keep": 3} | RULES[rule] | settings)


def trained(model):
    """A PEFT model whose adapters do not start from 0, with gradients and a second adapter."""
    model.add_adapter("other", LoraConfig(r=2, target_modules=["query"]))
    train(model, adamw(model), steps=2)
    model(**batch()).loss.backward()
    return model


MODELS = {
    "base": tiny_bert,
    "base with dropout": lambda: tiny_bert(dropout=0.1).eval(),
    "causal": tiny_llama,
    "PEFT": lambda: lora_bert(dropout=0.1),
    "PEFT with all biases": lambda: lora_bert(bias="all"),
    "trained": lambda: trained(lora_bert()),
}

EVERY_RULE = ("base", "PEFT", "trained")  # which differ in what a rule does to them


def batches_for(model: nn.Module) -> list[dict]:
    if "Llama" not in type(model).__name__:
        return BATCHES
    return [{"input_ids": one["input_ids"], "labels": one["input_ids"]} for one in BATCHES]


@pytest.mark.parametrize(
    ("kind", "rule"), [(kind, rule) for kind in MODELS for rule in RULES if kind in EVERY_RULE or rule == "credit"]
)
def test_the_model_is_as_it_was(kind, rule):
    model = MODELS[kind]()
    before = snapshot(model)
    if (kind, rule) == ("trained", "gradient"):
        with pytest.raises(ModelError, match="does not start from 0"):
            weightlora.select(model, BATCHES, config(rule))
    else:
        choice = weightlora.select(model, batches_for(model), config(rule))
        assert len(choice.kept) == 3 and choice.final
    assert changes(model, before) == []


class Nested(nn.Module):
    """A module whose name is the end of another's: PEFT finds both where a list names the first."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"fc": nn.Linear(4, 4)})
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return SimpleNamespace(loss=self.fc(self.block["fc"](x)).square().mean())


def test_names_that_a_list_would_not_hold_apart_are_one_expression():
    model, batches = Nested(), [{"x": torch.ones(2, 4)}]
    choice = weightlora.select(model, batches, WeightLoraConfig(keep=1, selection="random", seed=1))
    adapted = [
        get_peft_model(Nested(), LoraConfig(target_modules=targets)).targeted_module_names
        for targets in (choice.module_names, choice.target_modules, choice.to("regex").strip())
    ]
    assert (choice.module_names, adapted) == (["fc"], [["block.fc", "fc"], ["fc"], ["fc"]])


@pytest.mark.parametrize("kind", ["base", "PEFT", "trained"])
def test_the_model_is_as_it_was_after_an_error(kind):
    model = MODELS[kind]()
    before = snapshot(model)

    def failing():
        yield from BATCHES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weightlora.select(model, failing(), config(select_steps=9))
    assert changes(model, before) == []


def test_the_choice_is_that_of_a_loop_by_hand():
    for base, lora in ((lora_bert(), None), (tiny_bert(), {"r": 4, "lora_alpha": 8, "task_type": "SEQ_CLS"})):
        given = None if lora is None else LoraConfig(**lora, target_modules=BERT_TARGETS)
        choice = weightlora.select(base, BATCHES, config(seed=7), lora=given, learning_rate=1e-2)
        model = lora_bert()
        if lora is not None:
            fresh = tiny_bert()
            torch.manual_seed(7)
            model = get_peft_model(fresh, LoraConfig(**lora, target_modules=BERT_TARGETS))
        optimizer = adamw(model, weight_decay=0)
        selector = WeightLora(model, optimizer, config(seed=7))
        for step in range(4):
            model(**BATCHES[step % 3]).loss.backward()
            optimizer.step(), selector.step(), optimizer.zero_grad()
        assert choice.to_dict() == Selection.of(selector).to_dict()
        assert list(choice.history) == selector.history


def test_a_probe_by_hand_chooses_the_same():
    choice = weightlora.select(lora_bert(), iter(BATCHES), config("gradient"))
    model = lora_bert()
    selector = WeightLora(model, adamw(model), config("gradient"))
    selector.probe(BATCHES)
    assert choice.scores == selector.scores and choice.target_modules == selector.kept


def test_experts_are_chosen_as_parameters():
    model = lora_mixtral()
    before = snapshot(model)
    ids = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(0))
    choice = weightlora.select(model, [{"input_ids": ids, "labels": ids}], config("gradient", keep=4))
    assert changes(model, before) == []
    assert len(choice.target_modules) + len(choice.target_parameters) == 4 and choice.target_parameters


def test_the_same_call_chooses_the_same_whatever_was_drawn_before():
    data = [{name: value[i] for name, value in one.items()} for one in BATCHES for i in range(8)]
    loader = DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0))
    order = loader.generator.get_state()
    model = tiny_bert(dropout=0.1)
    first = weightlora.select(model, loader, config())
    torch.rand(5)
    assert torch.equal(loader.generator.get_state(), order), "the loader goes on as if nothing had been read"
    assert weightlora.select(model, loader, config()).scores == first.scores
    assert weightlora.select(model, loader, config(seed=1)).scores != first.scores


def test_collators_that_draw_random_numbers_draw_the_same():
    def noisy():
        for one in BATCHES:
            shift = random.randrange(40) + np.random.randint(40)
            yield {**one, "input_ids": (one["input_ids"] + shift) % 50}

    first = weightlora.select(tiny_bert(), noisy(), config(select_steps=3, seed=2**33))
    random.random(), np.random.rand()
    with torch.no_grad():  # of the caller
        again = weightlora.select(tiny_bert(), noisy(), config(select_steps=3, seed=2**33))
    assert again.scores == first.scores


def test_a_fraction_of_steps_is_one_of_total_steps():
    assert weightlora.select(lora_bert(), BATCHES, config(select_steps=0.1), total_steps=40).step == 4
    with pytest.raises(ConfigError, match="select_steps=4 is longer than the training of 3 steps"):
        weightlora.select(lora_bert(), BATCHES, config(), total_steps=3)
    with pytest.raises(ConfigError, match=r"total_steps=0\.5 must be a whole number"):
        weightlora.select(lora_bert(), BATCHES, config(), total_steps=0.5)


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
def test_by_default_it_probes_and_a_rule_that_trains_takes_a_fifth_of_500_steps(monkeypatch):
    monkeypatch.setattr("weightlora.selection.choosing.TOTAL_STEPS", 15)
    choice = weightlora.select(tiny_bert(), BATCHES)
    assert (choice.rule, choice.step) == ("gradient", 0)
    whole = sum(module.parameters for module in choice.modules)
    assert 0 < sum(module.parameters for module in choice.kept) <= whole / 4
    trained = weightlora.select(tiny_bert(), BATCHES, WeightLoraConfig(selection="credit"))
    assert (trained.rule, trained.step, len(trained.kept)) == ("credit", 3, 3)


def test_groups_and_seeds():
    model = tiny_bert()
    before = snapshot(model)
    choice = weightlora.select(model, BATCHES, config(keep=4), group="qkv", seeds=2)
    assert changes(model, before) == []
    whole = [name for name in choice.target_modules if name.split(".")[-1] in ("query", "key", "value")]
    assert len(whole) % 3 == 0 and len(choice.kept) <= 4
    assert choice.grouping["group"] == "qkv" and set(choice.seeds.values()) <= {0, 1, 2}
    assert set(choice.seeds) == set(choice.scores) and max(choice.seeds.values()) > 0
    single = [weightlora.select(model, BATCHES, config(seed=seed)) for seed in (0, 1)]
    both = weightlora.select(model, BATCHES, config(), seeds=2)
    counts = {name: sum(name in one.target_modules for one in single) for name in both.scores}
    assert both.seeds == counts


def test_a_bar_is_shown_where_it_is_asked_for(capsys):
    weightlora.select(lora_bert(), BATCHES, config())
    assert capsys.readouterr().err == "", "not a terminal"
    weightlora.select(lora_bert(), BATCHES, config(), progress=True)
    assert "selecting" in capsys.readouterr().err


@pytest.mark.parametrize("loader", [list, iter])
def test_a_probe_of_fewer_batches_than_it_asks_for_chooses_from_them_with_a_warning(loader):
    settings = {"keep": 3, "selection": "gradient"}
    with pytest.warns(
        UserWarning, match="the probe got 2 of the 4 batches that it reads: the choice is made from these"
    ):
        choice = weightlora.select(tiny_bert(), loader(BATCHES[:2]), WeightLoraConfig(**settings))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the probe got")
        asked = weightlora.select(tiny_bert(), loader(BATCHES[:2]), WeightLoraConfig(**settings, probe_batches=2))
    assert choice.kept == asked.kept


def test_random_modules_need_no_batch():
    assert weightlora.select(tiny_bert(), [], config("random", seed=3)).step == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: weightlora.select(tiny_bert(), [], config()), DataError, "the loader gave no batch"),
        (lambda: weightlora.select(tiny_bert(), [], config("gradient")), DataError, "the probe got no batch"),
        (
            lambda: weightlora.select(tiny_bert(), iter(BATCHES), config()),
            DataError,
            "the loader ended after 3 of 4 steps, and a list_iterator can be read once: pass a data loader or a list",
        ),
        (
            lambda: weightlora.select(tiny_bert(), [{"input_ids": BATCHES[0]["input_ids"]}], config()),
            DataError,
            "batch 1 gave no loss to differentiate .NoneType.: give batches with labels",
        ),
        (lambda: weightlora.select(tiny_bert(), [(1, 2)], config()), DataError, "a batch is a tuple: give mappings"),
        (lambda: weightlora.select(tiny_bert(), BATCHES, config(keep=99)), ConfigError, "keep=99 is more than"),
        (lambda: weightlora.select("gpt2", BATCHES), ConfigError, "model='gpt2' is a str: pass the model itself"),
        (lambda: weightlora.select(tiny_bert(), config(), BATCHES), ConfigError, "loader is a WeightLoraConfig: pass"),
        (lambda: weightlora.select(tiny_bert(), BATCHES, {"keep": 3}), ConfigError, "is a dict: pass a WeightLoraC"),
        (
            lambda: weightlora.select(tiny_bert(), BATCHES, config(), learning_rate=0),
            ConfigError,
            "learning_rate=0 is",
        ),
        (lambda: weightlora.select(tiny_bert(), BATCHES, config(), group="q"), ConfigError, "group='q' is not known"),
        (
            lambda: weightlora.select(tiny_bert(), iter(BATCHES), config(), seeds=2),
            ConfigError,
            "seeds=2 reads the batches 2 times, and a list_iterator can be read once",
        ),
        (lambda: weightlora.select(nn.Sequential(nn.ReLU()), BATCHES), ModelError, "has no linear modules"),
        (
            lambda: weightlora.select(tiny_bert(), NAN, config()),
            TrainingError,
            "the loss of batch 1 is nan: check the",
        ),
    ],
)
def test_what_cannot_work_is_one_sentence(call, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error, match=message) as raised:
            call()
    assert "\n" not in str(raised.value)


def test_a_model_that_processes_share_is_refused():
    model = lora_bert()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "has_group", lambda: True)
        with pytest.raises(
            ModelError, match=r"select\(\) works in one process, and this one belongs to a group: choose before"
        ):
            weightlora.select(model, BATCHES, config())
