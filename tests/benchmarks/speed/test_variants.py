"""Every variant is what it is called."""

from dataclasses import replace

import pytest
import torch
from benchmarks.speed import models, variants
from benchmarks.speed.measure import LORA, many_compilations
from benchmarks.speed.models import BATCHES, How, large_llama
from benchmarks.speed.variants import LABELS, PARTS, SPARING, Clock, build, median_ratio
from benchmarks.speed.waits import WAITED
from operations import Operations
from torch._dynamo.testing import CompileCounter

from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError
from weightlora.guard import StepGuard
from weightlora.measure import saved_activation_bytes
from weightlora.rules import RULES


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
def test_every_variant_is_what_it_is_called(subject):
    variants = build(subject, tuple(LABELS))
    assert list(variants) == list(LABELS)
    found = {key: len(find_adapters(variants[key].model)) for key in LORA}
    assert found == {
        "lora": 12,
        "halves": 12,
        "recomputed": 12,
        "credit": 12,
        "low": 12,
        "gates": 12,
        "after": 3,
        "limit": 3,
        "top": 3,
        "dora": 12,
    }
    names = [[adapter.name for adapter in find_adapters(variants[key].model)] for key in ("after", "limit", "top")]
    assert names[0] == names[1] and all(".layer.1." in name for name in names[2])
    phases = [variants[key].selector.phase for key in ("credit", "gates", "after")]
    assert phases == ["select", "select", "train"]
    assert type(variants["adalora"].model.base_model).__name__ == "AdaLoraModel"
    assert variants["dora"].model.peft_config["default"].use_dora
    assert all(parameter.requires_grad for parameter in variants["full"].model.parameters())


def test_what_a_whole_run_chose_is_what_is_timed_after_the_choice(subject):
    """A choice by the warm-up may lie higher in the model, and then a step costs less than it does in a real run."""
    names = [adapter.name for adapter in find_adapters(build(subject, ("lora",))["lora"].model)]
    chosen = (names[0], names[5], names[7])
    found = build(replace(subject, chosen=chosen), ("after", "limit"))
    for variant in found.values():
        assert tuple(adapter.name for adapter in find_adapters(variant.model)) == chosen
    assert found["after"].selector.phase == "train" and "given" not in RULES
    for wrong in (chosen[:2], (*chosen[:2], "of.another.model")):
        with pytest.raises(ConfigError, match=f"names {len(wrong)} adapters, 2 of them on the model, and keeps 3"):
            build(replace(subject, chosen=wrong), ("after",))


def test_a_step_is_timed_in_parts_and_a_warm_up_is_not(subject):
    variant = build(subject, ("lora",))["lora"]
    assert variant.steps == []
    variant.step(subject.batches[0])
    parts = [variant.seconds[part] for part in PARTS]
    assert all(len(part) == 1 and part[0] >= 0 for part in parts) and variant.steps == [sum(p[0] for p in parts)]


def test_two_halves_and_recomputation_have_the_gradients_of_the_whole_batch_for_less_memory(subject):
    first = {name: tensor.repeat(8, *[1] * (tensor.dim() - 1)) for name, tensor in subject.batches[0].items()}
    found = build(replace(subject, batches=[first] * BATCHES), ("lora", *SPARING))
    gradients, kept = {}, {}
    for key, variant in found.items():
        variant.step(first)
        assert all(len(variant.seconds[part]) == 1 for part in PARTS)
        for module in variant.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        variant.model.double().load_state_dict(found["lora"].model.state_dict())
        step = variant.parts(first)
        for _ in range(2 * variant.pieces):
            next(step)
        gradients[key] = [p.grad for p in variant.model.parameters() if p.requires_grad]
        kept[key] = saved_activation_bytes(variant.model, variant.split(first)[0])
    for key in SPARING:
        torch.testing.assert_close(gradients[key], gradients["lora"])
    assert 0.4 < kept["halves"] / kept["lora"] < 0.6 and kept["recomputed"] < kept["lora"]


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
@pytest.mark.parametrize("key", ["lora", "credit", "after"])
def test_our_hooks_are_timed_apart_from_the_optimizers_step(subject, key, monkeypatch):
    """A clock that only the guard advances."""
    variant, time = build(subject, (key,))[key], [0.0]

    def tick(guard):
        time[0] += 1
        return False

    monkeypatch.setattr(StepGuard, "is_spoiled", tick)
    monkeypatch.setattr("time.perf_counter", lambda: time[0])
    variant.step(subject.batches[0])
    expected = {"lora": 0.0, "credit": 1.0, "after": 1.0}[key]
    assert {part: took for part, (took,) in variant.seconds.items()} == dict.fromkeys(PARTS, 0.0) | {"hooks": expected}


def test_the_clock_reads_what_lies_between_laps(monkeypatch):
    times = iter([1.0, 1.5, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock(torch.device("cpu"))
    clock.lap()
    clock.lap()
    assert clock.read() == [0.5, 2.5]


def test_a_ratio_is_of_the_same_round():
    assert median_ratio([2.0, 9.0, 8.0], [4.0, 3.0, 4.0]) == 2.0


@pytest.mark.filterwarnings("ignore:the adapters are chosen after only")
def test_after_the_choice_a_step_makes_the_operations_of_plain_lora_and_those_of_the_guard(subject):
    made = {}
    for key, variant in build(subject, ("after", "limit")).items():
        step = variant.parts(subject.batches[0])
        for part in WAITED:
            with Operations() as operations:
                next(step)
            made[key, part] = operations.made
    for part in ("forward", "backward"):
        assert made["after", part] == made["limit", part] and made["limit", part].total() > 50
    assert made["after", "selector"].total() == 0
    guard = made["after", "optimizer"] - made["limit", "optimizer"]
    assert not made["limit", "optimizer"] - made["after", "optimizer"]
    assert guard["_foreach_norm"] == 1 and guard.total() < 10, guard


TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def llama(monkeypatch):
    """Makes a small model of the kind that is timed on a GPU."""
    monkeypatch.setattr(models, "TOKENS", 32)
    return lambda **how: large_llama(torch.device("cpu"), 16, How("bfloat16", **how), TINY)


def test_adapters_have_the_models_dtype_and_blocks_are_recomputed_where_the_subject_says_so(llama):
    for checkpointing in (False, True):
        model = build(llama(checkpointing=checkpointing), ("lora",))["lora"].model
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        assert model.is_gradient_checkpointing == checkpointing


@pytest.mark.slow
def test_a_model_is_compiled_where_the_subject_says_so_and_as_often_as_it_takes(llama, monkeypatch):
    counter = CompileCounter()
    monkeypatch.setattr(variants, "BACKEND", counter)
    build(llama(), ("lora",))
    assert counter.frame_count == 0
    with many_compilations():
        assert torch._dynamo.config.fail_on_cache_limit_hit
        assert build(llama(compiled=True), ("lora",))["lora"].model.peft_config
    assert counter.frame_count == 1 and not torch._dynamo.config.fail_on_cache_limit_hit
