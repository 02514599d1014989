"""The measurement of a step, on tiny models: every variant is what it is called, and ratios are of one round."""

import io
import json
import sys

import pytest
from benchmarks import speed
from models import batch, lora_bert
from rich.console import Console
from torch import nn


def test_quotients_are_of_the_same_round():
    mine, base = (speed.Variant("", nn.Linear(1, 1), None, seconds=list(s)) for s in ((2.0, 9.0), (4.0, 3.0)))
    assert speed.quotients(mine, base) == [0.5, 3.0]
    assert speed.quartiles([3.0]) == [3.0, 3.0] and speed.quartiles([1.0, 2.0, 3.0]) == [1.0, 3.0]


def test_each_round_begins_with_another_variant():
    order = []

    class Stepping(speed.Variant):
        def step(self, batch):
            order.append((self.label, batch))

    variants = {name: Stepping(name, nn.Linear(1, 1), None) for name in "abc"}
    speed.time_rounds(variants, ["first", "second"], 3, Console(file=io.StringIO()))
    assert order == [
        *(("a", "first"), ("b", "first"), ("c", "first")),
        *(("b", "second"), ("c", "second"), ("a", "second")),
        *(("c", "first"), ("a", "first"), ("b", "first")),
    ]
    assert [len(variant.seconds) for variant in variants.values()] == [3, 3, 3]


@pytest.mark.filterwarnings("ignore:the adapters are chosen on the evidence")
def test_the_figures_are_of_the_variants_and_are_written(tmp_path, monkeypatch, capsys):
    def tiny_lora(seed, target_modules):
        return lora_bert(target_modules=target_modules)

    monkeypatch.setattr(speed, "minilm_lora", tiny_lora)
    monkeypatch.setattr(speed, "load_batches", lambda: [batch(step) for step in range(2)])
    monkeypatch.setattr(speed, "BATCHES", 2)
    for name in ("set_verbosity_error", "disable_progress_bar"):  # for the whole process
        monkeypatch.setattr(speed.transformers.logging, name, lambda: None)
    path = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["speed", "--rounds", "2", "--output", str(path)])
    assert speed.main() == 0
    written = json.loads(path.read_text())
    found = written["variants"]
    adapters = {name: figures["adapters"] for name, figures in found.items()}
    assert adapters == {"all": 12, "stoiht": 12, "credit": 12, "after": 9, "direct": 9, "top": 9}
    for key in ("trainable_parameters", "optimizer_state_bytes", "saved_activation_bytes"):
        assert found["after"][key] == found["direct"][key] < found["all"][key]
    assert found["all"]["step_time_ratio"] == 1 and found["all"]["step_time_ratio_quartiles"] == [1, 1]
    assert written["settings"]["rounds"] == 2 and len(written["targets"]) == 5
    activations = written["targets"][-1]
    assert activations == {
        "what": "activations: after / LoRA on the same 9",
        "value": 1.0,
        "wanted": "1 ± 0.01",
        "met": True,
    }
    shown = capsys.readouterr().out
    assert all(figures["label"] in shown for figures in found.values()) and "1.000, wanted 1 ± 0.01" in shown


@pytest.mark.parametrize(
    ("credit", "stoiht", "after", "met"),
    [
        (1.05, 1.05, 0.85, [True, True, True, True, True]),
        (1.06, 1.0, 0.86, [False, True, False, True, True]),
        (1.0, 1.06, 0.8, [True, False, True, True, True]),
    ],
)
def test_targets_are_met_or_missed(credit, stoiht, after, met):
    times = {"all": 1.0, "credit": credit, "stoiht": stoiht, "after": after, "direct": after * 1.02}
    variants = {name: speed.Variant(name, nn.Linear(1, 1), None, seconds=[time]) for name, time in times.items()}
    figures = {"after": {"saved_activation_bytes": 1000}, "direct": {"saved_activation_bytes": 1005}}
    assert [target.holds(target.value) for target in speed.targets(variants, figures)] == met
    figures["direct"]["saved_activation_bytes"] = 980
    variants["direct"].seconds = [after * 0.9]
    assert [target.holds(target.value) for target in speed.targets(variants, figures)][3:] == [False, False]


def test_no_rounds_are_refused_before_anything_loads(monkeypatch, capsys):
    monkeypatch.setattr(speed, "load_batches", lambda: pytest.fail("data was loaded"))
    monkeypatch.setattr(sys, "argv", ["speed", "--rounds", "0"])
    with pytest.raises(SystemExit) as stop:
        speed.main()
    assert stop.value.code == 2 and "--rounds 0 is too small: give at least 1" in capsys.readouterr().err


def test_batches_are_full(monkeypatch):
    """Every second review is too short."""
    rows = [{"text": "film " * (60 + i % 2 * 10), "label": i // 2 % 2} for i in range(600)]
    monkeypatch.setattr(speed, "load_reviews", lambda name: {"train": rows})
    batches = speed.load_batches()
    assert len(batches) == speed.BATCHES
    for one in batches:
        assert one["input_ids"].shape == (speed.BATCH_SIZE, speed.TOKENS) and one["attention_mask"].all()
        assert one["labels"].tolist() == [0, 1] * (speed.BATCH_SIZE // 2)
