"""mlx-lm adapts what the snippet for it names, on the CPU."""

import pytest
import yaml
from consumers.settings.sources import installed
from selections import chosen, edited, lora_llama, wanted


def adapt(block: str):
    """A Llama with what mlx-lm makes of its YAML file (mlx_lm/lora.py, `train_model`)."""
    installed("mlx_lm")
    pytest.importorskip("mlx.core")
    from mlx_lm import lora
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.utils import linear_to_lora_layers

    settings = lora.CONFIG_DEFAULTS | yaml.load(block, lora.yaml_loader)
    sizes = {"hidden_size": 16, "num_hidden_layers": 12, "intermediate_size": 24, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "rms_norm_eps": 1e-5, "vocab_size": 50}
    model = Model(ModelArgs(model_type="llama", tie_word_embeddings=False, **sizes))
    model.freeze()
    assert settings["num_layers"] <= len(model.layers)
    kind = settings["fine_tune_type"]
    linear_to_lora_layers(model, settings["num_layers"], settings["lora_parameters"], use_dora=kind == "dora")
    return model


def adapted(model) -> dict[str, tuple[int, float]]:
    modules = [(name, module) for name, module in model.named_modules() if "lora_a" in module]
    return {name: (module.lora_a.shape[1], module.scale) for name, module in modules}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("keep", [1, 30])
def test_mlx_adapts_the_chosen_modules(keep, rslora):
    selection = chosen(lora_llama(12, use_rslora=rslora), keep)
    model = adapt(selection.to("mlx"))
    assert adapted(model) == wanted(selection)

    from mlx.utils import tree_flatten

    trained = {name.rpartition(".")[0] for name, _ in tree_flatten(model.trainable_parameters())}
    assert trained == set(selection.target_modules)


def test_dora_with_dropout():
    selection = chosen(lora_llama(12, use_dora=True, lora_dropout=0.25), 30)
    model = adapt(selection.to("mlx"))
    assert adapted(model) == wanted(selection)
    assert all("m" in one for _, one in model.named_modules() if "lora_a" in one)
    assert {one.dropout._p_1 for _, one in model.named_modules() if "lora_a" in one} == {0.75}


def test_embeddings_and_the_head():
    targets = r".*_proj|lm_head|model\.embed_tokens"
    selection = edited(chosen(lora_llama(12, target_modules=targets)), ["model.embed_tokens", "lm_head"])
    assert adapted(adapt(selection.to("mlx"))) == wanted(selection)


def test_one_rank_for_all_as_the_block_says():
    selection = chosen(lora_llama(12, rank_pattern={"q_proj": 2}), 84)
    found = adapted(adapt(selection.to("mlx")))
    assert set(found) == set(wanted(selection))
    assert {rank for rank, _ in found.values()} == {4}
    assert "# mlx-lm has one rank for all modules" in selection.to("mlx")
