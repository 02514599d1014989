"""Every variant is what it is called."""

import pytest
import torch
from benchmarks.speed.measure import LORA
from benchmarks.speed.variants import LABELS, PARTS, Clock, build, median_ratio

from weightlora.adapters import find_adapters


@pytest.mark.filterwarnings("ignore:the adapters are chosen on the evidence")
def test_every_variant_is_what_it_is_called(subject):
    variants = build(subject, tuple(LABELS))
    assert list(variants) == list(LABELS)
    found = {key: len(find_adapters(variants[key].model)) for key in LORA}
    assert found == {"lora": 12, "credit": 12, "low": 12, "gates": 12, "after": 3, "limit": 3, "top": 3, "dora": 12}
    names = [[adapter.name for adapter in find_adapters(variants[key].model)] for key in ("after", "limit", "top")]
    assert names[0] == names[1] and all(".layer.1." in name for name in names[2])
    phases = [variants[key].selector.phase for key in ("credit", "gates", "after")]
    assert phases == ["select", "select", "train"]
    assert type(variants["adalora"].model.base_model).__name__ == "AdaLoraModel"
    assert variants["dora"].model.peft_config["default"].use_dora
    assert all(parameter.requires_grad for parameter in variants["full"].model.parameters())


def test_a_step_is_timed_in_parts_and_a_warm_up_is_not(subject):
    variant = build(subject, ("lora",))["lora"]
    assert variant.steps == []
    variant.step(subject.batches[0])
    parts = [variant.seconds[part] for part in PARTS]
    assert all(len(part) == 1 and part[0] >= 0 for part in parts) and variant.steps == [sum(p[0] for p in parts)]


def test_the_clock_reads_what_lies_between_laps(monkeypatch):
    times = iter([1.0, 1.5, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock(torch.device("cpu"))
    clock.lap()
    clock.lap()
    assert clock.read() == [0.5, 2.5]


def test_a_ratio_is_of_the_same_round():
    assert median_ratio([2.0, 9.0, 8.0], [4.0, 3.0, 4.0]) == 2.0
