"""Reading an adapter directory: every kind of pair with PEFT's own scaling, and what is damaged or is no LoRA."""

import json
import shutil
import warnings
from contextlib import nullcontext

import pytest
import torch
from exports import CASES, saved
from models import adamw, lora_bert, lora_zoo, tiny_bert, tiny_llama, train
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.errors import DataError
from weightlora.export.source import CONFIG, WEIGHTS, check_final, find_adapter, read_source
from weightlora.state import write_state


@pytest.fixture
def copy(tmp_path):
    """A copy of an adapter that may be damaged."""
    return shutil.copytree(saved("mixed ranks"), tmp_path / "copy")


def edit(directory, **settings):
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps(config | settings))


@pytest.mark.parametrize("name", CASES)
def test_every_pair_is_what_peft_loads(name):
    found = {pair.name: pair for pair in read_source(saved(name)).pairs}
    model = PeftModel.from_pretrained(CASES[name].base(), str(saved(name)))
    adapters = {adapter.name: adapter for adapter in find_adapters(model, "default", check=False)}
    assert found.keys() == adapters.keys()
    for name, adapter in adapters.items():
        pair = found[name]
        assert (pair.rank, pair.scaling) == (adapter.rank, pytest.approx(adapter.scaling, rel=1e-12))
        assert pair.blocks == adapter.blocks
        for read_factor, factor in zip((pair.a, pair.b), adapter.factors, strict=True):
            assert torch.equal(read_factor, factor)


def test_convolutions_with_groups_and_embeddings_are_known_by_their_shapes(tmp_path):
    lora_zoo(r=4).save_pretrained(tmp_path)
    assert {pair.name: (pair.kind, pair.blocks) for pair in read_source(tmp_path).pairs} == {
        "conv1": ("convolution", 2),
        "conv2": ("convolution", 1),
        "conv3": ("convolution", 1),
        "embed": ("embedding", 1),
        "linear": ("linear", 1),
    }


def test_layers_are_in_the_order_of_their_numbers(tmp_path):
    lora_bert(11, target_modules=["query"]).save_pretrained(tmp_path)
    names = [pair.name for pair in read_source(tmp_path).pairs]
    assert names == [f"bert.encoder.layer.{i}.attention.self.query" for i in range(11)]


def test_heads_and_base_embeddings_are_kept_apart():
    source = read_source(saved("a head"))
    assert set(source.heads) == {"base_model.model.classifier.weight", "base_model.model.classifier.bias"}
    source = read_source(saved("an embedding"))
    assert set(source.others) | set(source.heads) == set()


def test_a_run_directory_is_taken_by_its_adapter(tmp_path):
    shutil.copytree(saved("gates"), tmp_path / "run" / "adapter")
    assert find_adapter(tmp_path / "run") == tmp_path / "run" / "adapter"


@pytest.mark.parametrize(
    ("selection", "steps", "expected"),
    [
        (
            "stoiht",
            3,
            pytest.raises(DataError, match="after 3 of 4 selection steps, and its gates are not in"),
        ),
        ("stoiht", 4, nullcontext()),
        ("credit", 3, pytest.warns(UserWarning, match="before the choice, so the export has all 6 adapters")),
        ("credit", 4, nullcontext()),
    ],
)
def test_an_adapter_that_was_saved_before_the_choice_is_refused_with_gates_and_told_without(
    selection, steps, expected, tmp_path
):
    model = lora_bert(1)
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=2, select_steps=4, selection=selection))
    train(model, optimizer, selector, steps=steps)
    model.save_pretrained(tmp_path)
    write_state(selector.state_dict(), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with expected:
            check_final(tmp_path)


@pytest.mark.parametrize(("name", "refused"), [("mine", True), ("other", False)])
def test_the_state_of_an_adapter_of_another_name_is_above_it(name, refused, tmp_path):
    model = get_peft_model(tiny_bert(), LoraConfig(r=2, target_modules="all-linear"), adapter_name="mine")
    optimizer = adamw(model)
    config = WeightLoraConfig(keep=2, select_steps=4, selection="stoiht", adapter_name="mine")
    selector = WeightLora(model, optimizer, config)
    train(model, optimizer, selector, steps=3)
    model.save_pretrained(tmp_path)
    write_state(selector.state_dict(), tmp_path)
    (tmp_path / "mine").rename(tmp_path / name)  # an adapter of its own
    if refused:
        with pytest.raises(DataError, match="its gates are not in the adapter yet"):
            check_final(tmp_path / name)
    else:
        check_final(tmp_path / name)


def test_what_another_peft_wrote_into_the_config_is_not_passed_over(copy):
    edit(copy, of_old=None, of_new=False)
    read_source(copy)
    edit(copy, use_future_variant=True)
    with pytest.raises(
        DataError, match=r"has use_future_variant=True, which this PEFT does not know and would ignore"
    ):
        read_source(copy)


@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head"])
def test_the_layer_that_is_tied_to_a_saved_one_is_no_stranger(saved, tmp_path):
    config = LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=[saved], ensure_weight_tying=True, task_type="CAUSAL_LM"
    )
    get_peft_model(tiny_llama(tied=True), config).save_pretrained(tmp_path)
    source = read_source(tmp_path)
    assert len(source.heads) >= 1 and not source.others


def test_a_directory_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no PEFT adapter \(no adapter_config.json\): give the directory"):
        find_adapter(tmp_path)
    get_peft_model(tiny_bert(), LoraConfig(target_modules=["query"]), adapter_name="mine").save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"give the directory of a saved adapter, such as .*/mine\.$"):
        find_adapter(tmp_path)
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(DataError, match=r"has no adapter_model.safetensors: save the adapter in safetensors"):
        find_adapter(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHA"}, r"adapter of type 'LOHA', and only LORA is exported"),
        ({"r": 5}, r"have shapes \(4, 24\) and \(16, 4\), and rank 5 is in adapter_config.json"),
        ({"r": 0, "rank_pattern": {}}, r"not a LoRA config that this PEFT reads|has rank 0 for"),
        ({"lora_alpha": "8"}, r"has alpha '8' for 'model.layers.0.mlp.down_proj': give a finite number"),
        ({"r": "many"}, r"not a LoRA config that this PEFT reads|has rank 'many' for"),
        ({"rank_pattern": {"(": 4}}, r"has the pattern '\(', no expression \(.*\): correct it\.$"),
        ({"rank_pattern": 5}, r"has rank_pattern=5, and it must be an object: correct it\.$"),
        ({"alpha_pattern": [1]}, r"has alpha_pattern=\[1\], and it must be an object"),
        ({"base_model_name_or_path": 5}, r"has base_model_name_or_path=5, and it must be a directory or a hub id"),
        ({"target_parameters": 5}, r"has target_parameters=5, and it must be a list of names|not a LoRA config"),
        ({"target_modules": 5}, r"has target_modules=5, and it must be a list of names, or an expression|not a LoRA"),
        ({"modules_to_save": "score"}, r"has modules_to_save='score', and it must be a list of names|not a LoRA"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(copy, settings, message):
    edit(copy, **settings)
    with pytest.raises(DataError, match=message):
        read_source(copy)


def test_damaged_weights_are_one_sentence(copy):
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:100])
    with pytest.raises(DataError, match=r"adapter_model.safetensors cannot be read"):
        read_source(copy)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_adapter_that_diverged_is_refused(copy, value):
    tensors = load_file(copy / WEIGHTS)
    (name,) = [name for name in tensors if name.endswith("layers.0.mlp.down_proj.lora_B.weight")]
    tensors[name][0, 0] = value
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(DataError, match=r"down_proj' has NaN or infinite entries, so its training diverged: train it"):
        read_source(copy)


def test_half_a_pair_is_refused(copy):
    tensors = load_file(copy / WEIGHTS)
    del tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(DataError, match=r"has no B for the adapter 'model.layers.0.self_attn.q_proj'"):
        read_source(copy)


def test_no_adapter_at_all_is_refused(copy):
    save_file({}, copy / WEIGHTS)
    with pytest.raises(DataError, match="has no LoRA adapter in it: there is nothing to export"):
        read_source(copy)
