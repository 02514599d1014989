"""The settings for TRL, axolotl, LLaMA-Factory and ms-swift: through TRL's own parser here, and through the others' in
`tests/consumers`."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from models import lora_mixtral
from peft import get_peft_model
from run_directories import write_run
from selections import CASES, adapted, chosen, edited, kept_settings, lora_llama, lora_odd, lora_twins, wanted

from weightlora import Selection
from weightlora.selection.formats.targets import one_for_all


def parsed_by_trl(block: str, tmp_path) -> Any:
    trl = pytest.importorskip("trl", reason="trl is not installed")
    (tmp_path / "trl.yaml").write_text(block, encoding="utf-8")
    (config,) = trl.TrlParser(trl.ModelConfig).parse_args_and_config(["--config", str(tmp_path / "trl.yaml")])
    return config


@pytest.mark.parametrize("case", CASES)
def test_trl_adapts_the_chosen_modules(case, tmp_path):
    selection, base = CASES[case]()
    parsed = parsed_by_trl(selection.to("trl"), tmp_path)
    from trl import get_peft_config

    config = get_peft_config(parsed)
    assert (config.modules_to_save or []) == selection.modules_to_save and kept_settings(config, selection)
    config.task_type = None  # a model of another kind than its task is no concern here
    one = one_for_all(selection, "TRL")
    found = adapted(get_peft_model(base, config))
    assert set(found) == set(wanted(selection)) and len(found) == len(selection.kept)
    assert {rank for rank, _ in found.values()} == {one.rank}
    assert [scaling for _, scaling in found.values()] == pytest.approx(
        [one.scaling] * len(found), rel=0.03
    )  # alpha is whole


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lora_odd, "part.par(en"),
        (lora_mixtral, "model.layers.0.self_attn.q_proj"),
        (lora_mixtral, "model.layers.0.mlp.experts.down_proj"),
        (
            lambda: lora_llama(target_modules=[], target_parameters=["up_proj.weight"]),
            "model.layers.0.mlp.up_proj.weight",
        ),
    ],
)
def test_trl_adapts_a_single_module_or_parameter_alone(make, name, tmp_path):
    """A list of one would be an expression, and without a list PEFT would adapt its default modules."""
    get_peft_config = pytest.importorskip("trl").get_peft_config
    selection = edited(chosen(make(), 2), [name])
    config = get_peft_config(parsed_by_trl(selection.to("trl"), tmp_path))
    config.task_type = None
    assert adapted(get_peft_model(make().unload(), config)) == wanted(selection)


def test_what_trl_cannot_express_is_said():
    selection = chosen(lora_llama(rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 4, "k_proj": 3.5}), 14)
    block = selection.to("trl")
    ranks = "# TRL's command line has one rank for all modules, and the choice has 4 (12 modules), 2 (2 modules): "
    scalings = "# TRL's command line has one scaling for all modules, and the choice has 2.0 (12 modules), 0.875 (2 "
    assert ranks in block and scalings in block and "--format peft prints it" in block
    assert yaml.safe_load(block)["lora_r"] == 4


def test_what_llamafactory_never_adapts_is_said():
    selection = chosen(lora_llama(), 14)
    renamed = {"model.layers.0.mlp.up_proj": "model.visual.patch_embed.proj"}
    modules = tuple(replace(one, name=renamed.get(one.name, one.name)) for one in selection.modules)
    block = replace(selection, modules=modules).to("llamafactory")
    assert "# LLaMA-Factory adapts no model.visual.patch_embed.proj, whatever it freezes.\n" in block
    assert "adapts no" not in selection.to("llamafactory")


def test_the_block_for_axolotl():
    kept = ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"]
    model = lora_llama(rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 5.5})
    everything = chosen(model, 14)
    rows = everything.to_dict()
    for row in rows["adapters"]:
        if row["name"] not in kept:
            row.update(kept=False, rank=None, scaling=None, omega=0.0)
    block = Selection.from_dict(rows).to("axolotl")
    assert yaml.safe_load(block) == {
        "adapter": "lora",
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_target_linear": False,
        "lora_target_modules": kept,
        "lora_rank_pattern": {"model.layers.1.self_attn.q_proj": 2},
        "lora_alpha_pattern": {"model.layers.1.self_attn.q_proj": 6},
    }
    assert "# axolotl takes whole numbers as alpha: 6 stands for 5.5.\n" in block
    assert "# This needs axolotl 0.18 or later: earlier ones ignore the two patterns.\n" in block
    assert "0.18" not in edited(everything, kept[:1]).to("axolotl")


def test_axolotl_gets_the_ranks_of_hundreds_of_modules(tmp_path):
    """They are few long patterns, and YAML takes a long key in another form alone."""
    selection = Selection.load(write_run(tmp_path / "run", layers=50, steps=1))
    ranks = [1 + place % 5 for place in range(350)]
    kept = zip(selection.modules, ranks, strict=True)
    modules = tuple(replace(one, kept=True, omega=1.0, rank=rank, scaling=2.0) for one, rank in kept)
    selection = replace(selection, modules=modules)
    assert len(selection.rank_pattern) == 4 and min(map(len, selection.rank_pattern)) > 1024
    settings = yaml.safe_load(selection.to("axolotl"))
    assert settings["lora_rank_pattern"] == selection.rank_pattern
    assert settings["lora_alpha_pattern"] == selection.alpha_pattern


def test_the_block_for_llamafactory():
    selection = edited(
        chosen(lora_llama(use_rslora=True)), ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]
    )
    assert yaml.safe_load(selection.to("llamafactory")) == {
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "lora_target": "model.layers.0.mlp.up_proj,model.layers.1.mlp.up_proj",
    }


def test_the_block_for_ms_swift():
    names = ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]
    model = lora_llama(use_rslora=True, lora_alpha=6.5, modules_to_save=["lm_head"])
    assert yaml.safe_load(edited(chosen(model), names).to("swift")) == {
        "lora_rank": 4,
        "lora_alpha": 6.5,
        "use_rslora": True,
        "target_modules": names,
        "modules_to_save": ["lm_head"],
        "lora_dropout": 0.0,
    }


def test_ms_swift_gets_an_expression_where_names_end_others():
    selection = chosen(lora_twins(), 3)
    assert yaml.safe_load(selection.to("swift"))["target_regex"] == selection.target_modules


def test_ms_swift_gets_no_empty_list():
    """Which is no argument, and its default is all linear modules."""
    experts = [f"model.layers.{layer}.mlp.experts.down_proj" for layer in range(2)]
    settings = yaml.safe_load(edited(chosen(lora_mixtral()), experts).to("swift"))
    assert settings["target_parameters"] == experts and settings["lora_dropout"] == 0
    assert "target_modules" not in settings and not re.fullmatch(settings["target_regex"], "model.lm_head")


def test_what_llamafactory_cannot_express_is_said():
    experts = [f"model.layers.{layer}.mlp.experts.down_proj" for layer in range(2)]
    block = edited(chosen(lora_mixtral()), experts).to("llamafactory")
    assert yaml.safe_load(block) is None
    assert "# LLaMA-Factory adapts no parameters, and leaves out model.layers.0.mlp.experts.down_proj, " in block
    assert "cannot express this choice" in block
    assert "it may adapt them, too.\n" in chosen(lora_twins(), 3).to("llamafactory")
    names = ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]
    text = json.dumps(edited(chosen(lora_llama()), names).to_dict()).replace("1.mlp.up_proj", "1.mlp.up,proj")
    block = Selection.from_dict(json.loads(text)).to("llamafactory")
    assert yaml.safe_load(block)["lora_target"] == names[0]
    assert '# LLaMA-Factory separates names by commas, and cannot name "model.layers.1.mlp.up,proj".\n' in block
