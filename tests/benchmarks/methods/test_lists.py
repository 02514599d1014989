"""Fixed lists: which modules each has, and at which rank it is trained."""

from collections import Counter
from typing import Any

import pytest
import torch
from benchmarks.methods import ALL_METHODS
from models import tiny_bert, tiny_llama
from transformers import AutoConfig, AutoModelForSequenceClassification

from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError
from weightlora.train.demo import minilm_path
from weightlora.train.methods import Prepared, Setting

LAYER = "bert.encoder.layer.{}."
ATTENTION = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
MLP = ["intermediate.dense", "output.dense"]
POOLER = "bert.pooler.dense"


@pytest.fixture(scope="module")
def minilm() -> Any:
    """MiniLM-L6 with random weights: lists read names and shapes only."""
    return AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(minilm_path()))


def train(model: Any, method: str, target: Any = "all-linear", task_type: str = "SEQ_CLS", **changes: Any) -> Prepared:
    values = {"rank": 8, "alpha": 32, "dropout": 0.0, "keep": 9, "select_steps": 3, "steps": 6, "seed": 0}
    targets = {"target_modules": target, "task_type": task_type}
    return ALL_METHODS[method].prepare(Setting(model, targets, batches=lambda: iter(()), **(values | changes)))


def names_of(prepared: Prepared) -> list[str]:
    """What is trained. The base model is then as before."""
    names = [adapter.name for adapter in find_adapters(prepared.model)]
    prepared.model.unload()
    return names


def in_layers(*parts: str) -> list[str]:
    return [LAYER.format(layer) + part for layer in range(6) for part in parts]


def test_rslora_scales_by_the_root_of_the_rank(minilm, all_parameters):
    for rank, rslora in ((8, 4.0), (2, 8.0)):
        share = {"parameters": rank * 6 * 1920 / all_parameters}
        for options, scaling in ((share, 4.0), (share | {"rslora": True}, rslora)):
            prepared = train(minilm, "widening", options=options)
            for adapter in find_adapters(prepared.model):
                assert adapter.layer.scaling["default"] == pytest.approx(scaling)
            prepared.model.unload()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("peft-default", in_layers(ATTENTION[0], ATTENTION[2])),
        ("attention-only", in_layers(*ATTENTION)),
        ("mlp-only", in_layers(*MLP)),
        ("widening", in_layers(MLP[0])),
    ],
)
def test_the_lists_of_minilm(minilm, method, expected):
    prepared = train(minilm, method)
    assert prepared.candidates is not None and list(prepared.candidates) == [*in_layers(*ATTENTION, *MLP), POOLER]
    assert names_of(prepared) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("peft-default", ["self_attn.q_proj", "self_attn.v_proj"]),
        ("attention-only", [f"self_attn.{part}_proj" for part in "qkvo"]),
        ("mlp-only", [f"mlp.{part}_proj" for part in ("gate", "up", "down")]),
        ("widening", ["mlp.gate_proj", "mlp.up_proj"]),
    ],
)
def test_the_lists_of_a_llama(method, expected):
    prepared = train(tiny_llama(), method, task_type="CAUSAL_LM")
    assert names_of(prepared) == [f"model.layers.{layer}.{part}" for layer in range(2) for part in expected]


def test_a_list_starts_with_the_values_of_lora_on_all_modules(minilm):
    starts = []
    for method in ("lora", "widening"):
        torch.manual_seed(3)
        model = train(minilm, method).model
        starts.append({adapter.name: adapter.factors[0].detach().clone() for adapter in find_adapters(model)})
        model.unload()
    everything, widening = starts
    assert len(everything) == 37 and len(widening) == 6
    assert all(torch.equal(value, everything[name]) for name, value in widening.items())


@pytest.fixture(scope="module")
def all_parameters(minilm) -> int:
    """Of LoRA on all modules."""
    lora = train(minilm, "lora").model
    size = sum(adapter.size for adapter in find_adapters(lora))
    lora.unload()
    return size


@pytest.mark.parametrize(
    ("method", "share"),
    [("peft-default", 0.25), ("peft-default", 0.1), ("mlp-only", 0.5), ("widening", 0.25), ("widening", 0.1)],
)
def test_a_share_of_parameters_sets_the_closest_rank(minilm, all_parameters, method, share):
    goal = share * all_parameters
    prepared = train(minilm, method, options={"parameters": share})
    adapters = find_adapters(prepared.model)
    (rank,) = {adapter.rank for adapter in adapters}
    per_rank = sum(adapter.size for adapter in adapters) / rank
    assert abs(rank * per_rank - goal) <= per_rank / 2
    assert {adapter.scaling for adapter in adapters} == {4.0}, "alpha / r is the setting's"
    prepared.model.unload()


def test_a_tiny_share_is_rank_1_and_without_one_the_rank_is_the_settings(minilm):
    for options, rank in (({"parameters": 1e-6}, 1), ({}, 8)):
        prepared = train(minilm, "widening", options=options)
        assert {(adapter.rank, adapter.scaling) for adapter in find_adapters(prepared.model)} == {(rank, 4.0)}
        prepared.model.unload()


def test_random_modules_have_the_sizes_of_the_list(minilm):
    like = [*in_layers(ATTENTION[0])[:3], *in_layers(*MLP)[:2]]
    drawn = []
    for seed in (0, 0, 1):
        prepared = train(minilm, "random-alike", options={"like": like}, seed=seed)
        assert Counter(adapter.size for adapter in find_adapters(prepared.model)) == {8 * 768: 3, 8 * 1920: 2}
        drawn.append(names_of(prepared))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("widening", {"parameters": 0}, "parameters=0 is not a share"),
        ("widening", {"parameters": 1.5}, "parameters=1.5 is not a share .*: give a number above 0 and up to 1"),
        ("random-alike", {"like": ["bert.pool"]}, "like has 'bert.pool', which LoRA does not adapt"),
        ("random-alike", {}, "like=None is not a list of names: give the modules to draw like"),
    ],
)
def test_bad_options_are_refused(minilm, method, options, message):
    with pytest.raises(ConfigError, match=message):
        train(minilm, method, options=options)


def test_a_model_without_the_modules_is_refused():
    with pytest.raises(ConfigError, match="have no module of this list"):
        train(tiny_bert(), "mlp-only", target=["query"])
    unknown = tiny_bert()
    unknown.config.model_type = "new"
    with pytest.raises(ConfigError, match="PEFT has no default target modules for model type 'new'"):
        train(unknown, "peft-default")
