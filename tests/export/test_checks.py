"""The checks find a lost, a changed and an added adapter, and outputs that differ."""

from dataclasses import replace

import pytest
import torch
from exports import saved
from models import tiny_bert, tiny_llama
from torch import nn
from transformers import CLIPConfig, CLIPModel

from weightlora.errors import ModelError
from weightlora.export.checks import attach, check_tables, compare_outputs, compare_pairs, outputs, probe_batch
from weightlora.export.pairs import PREFIX
from weightlora.export.source import read_source

FLOAT = torch.float32


@pytest.fixture
def pairs():
    return read_source(saved("plain LoRA")).pairs


def test_equal_pairs_pass_in_any_order(pairs):
    assert compare_pairs(pairs, pairs[::-1], FLOAT) < 1e-15


def test_a_lost_adapter_is_found(pairs):
    with pytest.raises(ModelError, match=r"has lost the adapter 'model.layers.0.mlp.down_proj'"):
        compare_pairs(pairs, pairs[1:], FLOAT)


def test_another_scaling_of_one_adapter_is_found(pairs):
    changed = [replace(pairs[0], scaling=pairs[0].scaling * 1.0001), *pairs[1:]]
    with pytest.raises(
        ModelError, match=r"differs from the source by 1\.0e-04 of its norm, and 1e-05 is the most for fl"
    ):
        compare_pairs(pairs, changed, FLOAT)
    assert compare_pairs(pairs, changed, torch.bfloat16) == pytest.approx(1e-4, rel=1e-3)


def test_an_added_adapter_must_add_nothing(pairs):
    added = replace(pairs[0], name="new")
    with pytest.raises(ModelError, match="has an adapter 'new' that the source has not"):
        compare_pairs(pairs, [*pairs, added], FLOAT)
    zeros = replace(added, a=torch.zeros_like(added.a), b=torch.zeros_like(added.b))
    assert compare_pairs(pairs, [*pairs, zeros], FLOAT) < 1e-15


def test_nan_does_not_pass(pairs):
    with pytest.raises(ModelError, match="differs from the source by nan"):
        compare_pairs(pairs, [replace(pairs[0], b=pairs[0].b * torch.nan), *pairs[1:]], FLOAT)
    with pytest.raises(ModelError, match="the outputs of the export differ from the source's by nan"):
        compare_outputs(torch.ones(3), torch.tensor([1.0, torch.nan, 1.0]), FLOAT, torch.zeros(3))


def test_the_probe_is_the_same_each_time_and_fits_the_model():
    first, second = probe_batch(tiny_bert()), probe_batch(tiny_bert())
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert first["input_ids"].shape == (1, 16) and int(first["input_ids"].max()) < 50
    model = tiny_llama()
    assert probe_batch(model)["input_ids"].shape == (1, 32)
    model.config.max_position_embeddings = -1  # as XLNet has it: there is no bound
    assert probe_batch(model)["input_ids"].shape == (1, 32)


def test_a_model_of_images_has_no_probe():
    model = tiny_bert()
    model.main_input_name = "pixel_values"
    with pytest.raises(ModelError, match="takes pixel_values, and outputs are compared on random tokens: compare the"):
        probe_batch(model)


def test_embeddings_may_be_rounded_and_nothing_else():
    base = tiny_llama()
    name, weight = "model.embed_tokens.weight", base.model.embed_tokens.weight.detach()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for stored in (torch.float32, torch.bfloat16, torch.float16):
            check_tables({PREFIX + name: weight.to(dtype).to(stored)}, base)
    trained = weight.clone()
    trained[7] *= 1 + 1e-6
    with pytest.raises(ModelError, match=r"trained with another 'model.embed_tokens.weight' than the base has"):
        check_tables({PREFIX + name: trained}, base)


def test_an_adapter_that_peft_puts_elsewhere_is_found():
    names = [pair.name for pair in read_source(saved("gates")).pairs]
    for wrong, verb in ((names[1:], "also adapts"), ([*names, "model.zzz"], "does not adapt")):
        with pytest.raises(ModelError, match=f"PEFT {verb} '"):
            attach(tiny_llama(), saved("gates"), wrong)


def test_another_base_is_one_sentence():
    message = r"PEFT cannot load .*, which may be another one \(.*\): give the one that it was trained on with --base"
    with pytest.raises(ModelError, match=message):
        attach(tiny_bert(), saved("gates"), [])


def test_outputs_that_differ_are_refused_and_close_ones_described():
    source = torch.tensor([1.0, -4.0])
    close = compare_outputs(source, source + 1e-5, FLOAT, torch.zeros(2))
    assert (close.largest, close.effect) == (4.0, 4.0) and close.difference == pytest.approx(1e-5, rel=0.1)
    with pytest.raises(
        ModelError, match=r"differ from the source's by 0\.001, where the largest is 4, so nothing was"
    ):
        compare_outputs(source, source + 1e-3, FLOAT, torch.zeros(2))
    with pytest.raises(ModelError, match="outputs of another shape"):
        compare_outputs(source, torch.zeros(3), FLOAT, torch.zeros(2))
    assert compare_outputs(source, source + 1e-3, torch.bfloat16, torch.zeros(2)).difference > 1e-4


def test_outputs_are_all_tensors_of_floating_type():
    class Two(nn.Module):
        def forward(self, input_ids):
            return {
                "start": torch.ones(2),
                "ids": torch.ones(2, dtype=torch.long),
                "end": torch.zeros(1),
                "none": None,
            }

    assert outputs(Two(), {"input_ids": torch.ones(1)}).tolist() == [1, 1, 0]


def test_a_model_that_needs_more_than_tokens_is_one_sentence():
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 50, "max_position_embeddings": 16}
    vision = sizes | {"image_size": 8, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    with pytest.raises(ModelError, match=r"does not run on random tokens \(.+\): compare .* --check tensors"):
        outputs(model, probe_batch(model))
