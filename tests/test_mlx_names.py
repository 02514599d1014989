"""The names were compared with those of mlx-lm's models: `tests/consumers/test_mlx.py` loads an adapter with them."""

import pytest

from weightlora.mlx_names import mlx_name, mlx_name_of_text, reads_more_than_text, type_by_names


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("model.language_model.layers.0.mlp.up_proj", "language_model.model.layers.0.mlp.up_proj"),
        ("model.language_model.embed_tokens", "language_model.model.embed_tokens"),
        ("lm_head", "language_model.lm_head"),
        ("model.layers.3.self_attn.q_proj", "language_model.model.layers.3.self_attn.q_proj"),
        ("language_model.model.layers.3.self_attn.q_proj", "language_model.model.layers.3.self_attn.q_proj"),
        ("model.vision_tower.encoder.layers.0.mlp.fc1", None),
        ("model.multi_modal_projector.linear_1", None),
    ],
)
def test_the_language_model_is_outside(name, theirs):
    assert mlx_name(name) == theirs


def test_only_names_tell_a_language_model_inside_another():
    assert reads_more_than_text(["lm_head", "model.language_model.layers.0.mlp.up_proj"])
    assert not reads_more_than_text(["lm_head", "model.layers.0.mlp.up_proj"])


@pytest.mark.parametrize(
    ("kind", "name", "theirs"),
    [
        ("llama", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
        ("llama", "lm_head", "lm_head"),
        ("mamba", "backbone.layers.0.mixer.in_proj", "backbone.layers.0.mixer.in_proj"),
        ("gpt_neox", "gpt_neox.layers.1.attention.dense", "model.h.1.attention.dense"),
        ("gpt_neox", "gpt_neox.embed_in", "model.embed_in"),
        ("gpt_neox", "lm_head", "model.embed_out"),
        ("nemotron_h", "model.layers.0.mixer.in_proj", "backbone.layers.0.mixer.in_proj"),
        ("olmo", "model.layers.0.mlp.up_proj", None),
        (None, "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
        ("gptj", "transformer.h.0.attn.q_proj", "model.h.0.attn.q_proj"),
        ("gpt_bigcode", "transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_attn"),
        ("deepseek_v2", "model.layers.0.self_attn.kv_b_proj", "model.layers.0.self_attn.kv_b_proj"),
        ("deepseek_v3", "model.layers.0.self_attn.kv_b_proj", None),
        ("bert", "bert.encoder.layer.0.output.dense", None),
        ("opt", "model.decoder.layers.0.fc1", None),
    ],
)
def test_a_model_of_text_has_the_names_of_mlx_lm(kind: str | None, name: str, theirs: str | None):
    """It would not load an adapter with others, and would skip them in the settings of a training."""
    assert mlx_name_of_text(name, kind) == theirs


def test_names_tell_a_gpt_neox():
    assert type_by_names(["lm_head", "gpt_neox.layers.1.attention.dense"]) == "gpt_neox"
    assert type_by_names(["lm_head", "model.layers.0.mlp.up_proj"]) is None
