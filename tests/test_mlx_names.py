"""The names were compared with those of mlx-lm's models: `tests/consumers/test_mlx.py` loads an adapter with them."""

import pytest

from weightlora.mlx_names import mlx_name, reads_more_than_text


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
