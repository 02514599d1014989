"""The models that are timed: batches are full and of one shape, and a copy is a copy."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from benchmarks.speed import models
from benchmarks.speed.models import BATCHES, GPU_MODELS, MODELS
from models import tiny_llama

from weightlora.errors import DataError


def test_the_llamas_grow_by_layers():
    found = [MODELS[f"Llama-{layers}-layers"]() for layers in (4, 8)]
    assert [len(one.base.model.layers) for one in found] == [4, 8] and [one.keep for one in found] == [7, 14]
    assert found[0].shape == (4, 64) and len(found[0].batches) == BATCHES


def test_a_copy_shares_no_weight(subject):
    one, other = subject.fresh(), subject.fresh()
    assert one.training and not {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in other.parameters()}


def test_copies_share_the_weights_that_no_variant_trains():
    found = MODELS["Llama-4-layers"]()
    other = replace(found, rivals=False)
    for one, shares in ((found, False), (other, True)):
        pairs = list(zip(one.base.parameters(), one.fresh().parameters(), strict=True))
        assert pairs and all((mine is copied) == shares for mine, copied in pairs)


def test_the_large_llama_is_made_on_its_device_in_eight_ways():
    """On the meta device: nothing is stored."""
    ways = {(load.keywords["tokens"], load.keywords["how"]) for load in GPU_MODELS.values()}
    assert len(ways) == len(GPU_MODELS) == 8
    for name, tokens in (("Llama-1B-512", 512), ("Llama-1B-2048-checkpointing-compiled", 2048)):
        found = GPU_MODELS[name](torch.device("meta"))
        parameters = list(found.base.parameters())
        assert {p.device.type for p in parameters} == {"meta"} and {p.dtype for p in parameters} == {torch.bfloat16}
        assert 1.0e9 < sum(p.numel() for p in parameters) < 1.1e9 and found.keep == 28 and not found.rivals
        assert found.shape == (4096 // tokens, tokens) and len(found.batches) == BATCHES
        assert found.base.config._attn_implementation == found.how.attention
        assert (found.how.checkpointing, found.how.compiled) == ("check" in name, "compiled" in name)


def test_reviews_that_are_too_short_are_left_out(monkeypatch):
    """Every second review is too short."""
    rows = [{"text": "film " * (60 + i % 2 * 10), "label": i // 2 % 2} for i in range(600)]
    monkeypatch.setattr(models, "load_reviews", lambda name: {"train": rows})
    found = MODELS["MiniLM-L6"]()
    assert len(found.batches) == BATCHES and found.shape == (32, 64) and found.keep == 6
    assert len(found.chosen) == 6 and "bert.encoder.layer.0.intermediate.dense" in found.chosen
    for one in found.batches:
        assert one["input_ids"].shape == (32, 64) and one["attention_mask"].all()
        assert one["labels"].tolist() == [0, 1] * 16


def test_smollm2_continues_text(monkeypatch):
    """The tokenizer gives one number a character."""

    def tokenizer(text):
        return SimpleNamespace(input_ids=[ord(character) % 50 for character in text])

    monkeypatch.setattr(models, "load_smollm2", lambda: (tiny_llama(), tokenizer))
    monkeypatch.setattr(models, "load_reviews", lambda name: {"train": [{"text": "a good film "}] * 400})
    found = MODELS["SmolLM2-135M"]()
    assert found.shape == (8, 64) and found.keep == 42 and len(found.batches) == BATCHES
    assert all((one["input_ids"] == one["labels"]).all() for one in found.batches)


def test_a_stored_run_that_does_not_say_what_it_kept_is_refused(monkeypatch):
    """Else the warm-up would choose, without a word."""
    monkeypatch.setattr(models, "read_result", lambda path: SimpleNamespace(kept=None))
    with pytest.raises(DataError, match="does not say what the run kept"):
        models._stored("rotten-tomatoes", "weightlora")
