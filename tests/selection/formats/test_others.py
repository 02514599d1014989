"""The settings for torchtune and mlx-lm. Both run them in `tests/consumers`."""

from dataclasses import replace

import pytest
import yaml
from models import lora_mixtral, tiny_gemma3
from peft import LoraConfig, get_peft_model
from selections import chosen, edited, lora_llama, selected

from weightlora import Selection


def test_torchtune_gets_the_nearest_superset():
    kept = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj", "model.layers.1.mlp.up_proj"]
    block = edited(chosen(lora_llama(use_rslora=True)), kept).to("torchtune")
    assert yaml.safe_load(block) == {
        "model": {
            "lora_attn_modules": ["q_proj", "output_proj"],
            "apply_lora_to_mlp": True,
            "lora_rank": 4,
            "lora_alpha": 16,  # 8 / sqrt(4) = 16 / 4: torchtune has no rsLoRA
        }
    }
    assert "torchtune chooses types, and not layers. The nearest superset adapts at least 7 more.\n" in block


def test_torchtune_gets_a_choice_of_whole_types_as_it_is():
    kept = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in range(2) for kind in "qv"]
    block = edited(chosen(lora_llama()), kept).to("torchtune")
    assert yaml.safe_load(block)["model"]["lora_attn_modules"] == ["q_proj", "v_proj"]
    assert "this adapts every layer" in block


def test_torchtune_wants_one_type_of_the_attention():
    block = edited(chosen(lora_llama(target_modules=r".*_proj|lm_head")), ["lm_head"]).to("torchtune")
    assert yaml.safe_load(block)["model"] | {"lora_rank": 0, "lora_alpha": 0} == {
        "lora_attn_modules": ["q_proj"],
        "apply_lora_to_mlp": False,
        "apply_lora_to_output": True,
        "lora_rank": 0,
        "lora_alpha": 0,
    }
    assert "q_proj is not of the choice" in block and "shares the embeddings' weights" in block


def test_torchtune_cannot_express_bert():
    block = Selection.of(selected(keep=5)).to("torchtune")
    assert yaml.safe_load(block) is None
    assert "torchtune has no adapter for bert.encoder" in block and " and 2 more.\n" in block


def test_mlx_gets_full_names_and_the_scaling():
    kept = ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"]
    block = edited(chosen(lora_llama(use_rslora=True)), kept).to("mlx")
    assert yaml.safe_load(block) == {
        "fine_tune_type": "lora",
        "num_layers": -1,
        "lora_parameters": {"rank": 4, "scale": 4.0, "dropout": 0.0, "keys": kept},
    }
    assert "skips names that it does not have" in block


def test_mlx_has_the_language_model_of_one_with_images():
    lora = LoraConfig(r=4, target_modules=r".*(language_model|vision_tower).*_proj")
    selection = chosen(get_peft_model(tiny_gemma3(), lora))
    kept = ["model.language_model.layers.1.mlp.up_proj", "model.vision_tower.encoder.layers.0.self_attn.q_proj"]
    both = edited(selection, kept).to("mlx")
    assert "Gemma 3n" not in both and "For Gemma 3n, write" in replace(edited(selection, kept), model_type=None).to(
        "mlx"
    )
    third = replace(edited(selection, kept[:1]), model_type="gemma3n").to("mlx")
    assert yaml.safe_load(third)["lora_parameters"]["keys"] == kept[:1]
    assert yaml.safe_load(both)["lora_parameters"]["keys"] == ["language_model.model.layers.1.mlp.up_proj"]
    assert "leaves out model.vision_tower.encoder.layers.0.self_attn.q_proj.\n" in both
    assert yaml.safe_load(edited(selection, kept[1:]).to("mlx")) is None


def test_mlx_has_other_names_for_gpt_neox():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50, **sizes))
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    block = edited(chosen(get_peft_model(base, lora)), ["gpt_neox.layers.1.attention.dense"]).to("mlx")
    assert yaml.safe_load(block)["lora_parameters"]["keys"] == ["model.h.1.attention.dense"]


def test_mlx_has_other_names_for_routers():
    """They are no switch_mlp modules there."""
    names = ["model.layers.1.mlp.gate.weight", "model.layers.0.self_attn.q_proj"]
    block = edited(chosen(lora_mixtral(target_parameters=["mlp.gate.weight"])), names).to("mlx")
    assert f"linear modules in place of the parameters {names[0]}, left out here" in block and "switch" not in block


def test_mlx_has_other_names_for_experts():
    parameters = ["model.layers.1.mlp.experts.gate_up_proj"]
    both = edited(chosen(lora_mixtral()), [*parameters, "model.layers.0.self_attn.q_proj"]).to("mlx")
    assert yaml.safe_load(both)["lora_parameters"]["keys"] == ["model.layers.0.self_attn.q_proj"]
    assert "switch_mlp modules in place of the parameters model.layers.1.mlp.experts.gate_up_proj" in both
    assert yaml.safe_load(edited(chosen(lora_mixtral()), parameters).to("mlx")) is None


@pytest.mark.parametrize("tool", ["torchtune", "mlx"])
def test_what_was_trained_in_full_is_said_where_a_tool_cannot(tool):
    selection = chosen(lora_llama(modules_to_save=["lm_head"]))
    assert '# That run trained "lm_head" in full, and ' in selection.to(tool)
    assert "in full" not in chosen(lora_llama()).to(tool)


@pytest.mark.parametrize("kind", ["qwen3_5_text", "llama4_text"])
def test_a_language_model_that_was_loaded_alone_has_the_names_of_the_whole_one(kind):
    """Transformers loads it from a checkpoint of a model that reads images, too, which mlx-lm loads whole."""
    kept = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"]
    selection = replace(edited(chosen(lora_llama()), kept), model_type=kind)
    keys = yaml.safe_load(selection.to("mlx"))["lora_parameters"]["keys"]
    assert keys == [f"language_model.{name}" for name in kept]
    for tool in ("trl", "llamafactory", "swift"):
        assert "write model.language_model. for model. there." in selection.to(tool)
    assert "language_model" not in edited(chosen(lora_llama()), kept).to("trl")


def test_the_type_of_a_model_tells_its_names_in_mlx():
    selection = replace(edited(chosen(lora_llama()), ["model.layers.1.mlp.up_proj"]), model_type="nemotron_h")
    assert yaml.safe_load(selection.to("mlx"))["lora_parameters"]["keys"] == ["backbone.layers.1.mlp.up_proj"]
