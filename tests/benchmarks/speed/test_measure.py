"""The figures of a model, on a tiny one: counts are exact, and rounds take turns."""

from dataclasses import replace

import pytest
from benchmarks.speed.measure import measure_model, summarize, time_rounds
from benchmarks.speed.variants import LABELS, NEEDED
from transformers import BertConfig, BertForSequenceClassification

pytestmark = pytest.mark.filterwarnings("ignore:the adapters are chosen after only")


def test_each_round_begins_with_another_variant(subject):
    order, rounds = [], []

    class Stepping:
        def __init__(self, key):
            self.key = key

        def step(self, batch):
            order.append((self.key, next(i for i, one in enumerate(subject.batches) if one is batch)))

    time_rounds({key: Stepping(key) for key in "abc"}, subject, 3, lambda: rounds.append(None))
    assert order == [(key, number) for number, keys in enumerate(("abc", "bca", "cab")) for key in keys]
    assert len(rounds) == 3


def test_the_figures_are_of_the_variants(subject):
    figures = measure_model(subject, tuple(LABELS), 2)
    found = figures["variants"]
    assert list(found) == list(LABELS) and figures["adapters"] == 12 and figures["batch"] == list(subject.shape)
    for key in ("trainable_parameters", "optimizer_state_bytes", "saved_activation_bytes", "file_bytes"):
        assert found["after"][key] == found["limit"][key] < found["lora"][key], key
    kept = {key: one["saved_activation_bytes"] for key, one in found.items()}
    assert 0.4 < kept["halves"] / kept["lora"] < 0.6, "of half a batch at a time"
    assert found["lora"]["over_lora"] == 1 and found["lora"]["over_lora_quartiles"] == [1, 1]
    assert all(len(one["steps"]) == 2 and one["peak_bytes"] > 0 for one in found.values())
    assert found["full"]["adapters"] is found["full"]["load_seconds"] is None
    assert summarize(figures)["activations_after_over_limit"] == 1


def test_low_memory_and_the_probe_need_less_than_a_selection_step(subject):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2}
    wide = BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=64, **sizes))
    first, *others = subject.batches
    first = {name: v.repeat(4, 4) if v.dim() == 2 else v.repeat(4) for name, v in first.items()}  # of the peaks
    figures = measure_model(replace(subject, base=wide, batches=[first, *others]), NEEDED, 2)
    peaks = {key: one["peak_bytes"] for key, one in figures["variants"].items()}
    assert peaks["low"] < peaks["credit"] and figures["peak_probing_bytes"] < peaks["credit"]


def test_the_summary_is_of_medians_and_of_rounds():
    def variant(steps, **more):
        parts = {"selector": 0.5, "hooks": 0.25}
        return {
            "steps": steps,
            "over_lora": 0.5,
            "parts": parts,
            "saved_activation_bytes": 8,
            "peak_bytes": 10,
            **more,
        }

    lora, credit = variant([2.0, 4.0, 3.0]), variant([4.0, 5.0, 6.0], over_lora=1.25)
    low = variant([6.0, 6.0, 6.0], peak_bytes=5)
    after, limit = variant([1.0, 2.0, 3.0]), variant([2.0, 2.0, 2.0], saved_activation_bytes=4)
    variants = {"lora": lora, "credit": credit, "low": low, "after": after, "limit": limit}
    assert summarize({"variants": variants, "expand_seconds": 6.0, "peak_probing_bytes": 4}) == {
        "before_over_lora": 1.25,
        "after_over_limit": 1.0,
        "after_over_lora": 0.5,
        "activations_after_over_limit": 2.0,
        "peak_selecting_over_kept": 0.5,
        "peak_probing_over_kept": 0.4,
        "disconnect_in_steps": 2.0,
        "own_overhead": 0.15,
    }
