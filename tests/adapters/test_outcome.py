"""PEFT's config tells the truth: it rebuilds the model from the saved files with plain PEFT."""

import cProfile
from unittest import mock

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from models import lora_bert, lora_gpt2, lora_mixtral, lora_zoo, tiny_bert, tiny_llama
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from survivors import injected, remove
from torch import nn

from weightlora.adapters import base_model_of, find_adapters, outcome
from weightlora.adapters.expansion import expand_
from weightlora.adapters.outcome import describe_
from weightlora.adapters.surgery import disconnect_, fold_gate_

RELOADS = {
    "bert": (lora_bert, tiny_bert, [1, 4, 11]),
    "20 modules and more": (lambda: lora_bert(layers=5), lambda: tiny_bert(5), [*range(3, 26)]),
    "one module": (lora_bert, tiny_bert, [6]),
    "rslora": (lambda: lora_bert(use_rslora=True), tiny_bert, [1, 4]),
    "lora_bias": (lambda: lora_bert(lora_bias=True), tiny_bert, [1, 4]),
    "layers_to_transform": (
        lambda: lora_bert(layers=3, target_modules=["query", "value"], layers_to_transform=[0, 2]),
        lambda: tiny_bert(3),
        [0, 3],
    ),
    "a regular expression and exclude_modules": (
        lambda: lora_bert(target_modules=r".*\.(query|dense)", exclude_modules=r".*pooler.*", task_type=None),
        tiny_bert,
        [0, 5],
    ),
    "rank_pattern": (lambda: lora_bert(rank_pattern={"query": 2, "1.output.dense": 7}), tiny_bert, [0, 6, 11]),
    "alpha_pattern": (lambda: lora_bert(alpha_pattern={"query": 3}, task_type=None), tiny_bert, [0, 4, 6]),
    "GPT-2": (lora_gpt2, lambda: lora_gpt2().unload(), [0, 5]),
    "embedding and convolutions": (lora_zoo, lambda: lora_zoo().unload(), [0, 2, 4]),
    "experts, the outer wrapper": (lora_mixtral, lambda: lora_mixtral().unload(), [0, 2, 7]),
    "experts, the inner wrapper": (lora_mixtral, lambda: lora_mixtral().unload(), [1, 3, 7]),
    "experts alone": (lora_mixtral, lambda: lora_mixtral().unload(), [2, 3]),
    "modules alone of a model with experts": (lora_mixtral, lambda: lora_mixtral().unload(), [0]),
}


def outputs(model: nn.Module) -> torch.Tensor:
    ids = torch.arange(16).reshape(2, 8) % 20
    model = model.eval()
    base = base_model_of(model)
    return model(ids) if type(base).__name__ == "Zoo" else model(input_ids=ids).logits


@pytest.mark.parametrize("case", RELOADS)
def test_a_saved_adapter_rebuilds_the_same_model_with_plain_peft(case, tmp_path):
    make, make_base, keep = RELOADS[case]
    model = make()
    for adapter in find_adapters(model):
        for parameter in adapter.parameters:
            nn.init.normal_(parameter, std=0.3)
    fold_gate_(find_adapters(model)[keep[0]], 0.37)
    kept = remove(model, keep)
    config = model.peft_config["default"]
    assert config.layers_to_transform is config.layers_pattern is config.exclude_modules is None
    expected = outputs(model)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    reloaded = PeftModel.from_pretrained(make_base(), tmp_path)
    assert injected(reloaded) == injected(model) == kept
    assert {a.name: a.rank for a in find_adapters(reloaded, check=False)} == {
        a.name: a.rank for a in find_adapters(model, check=False)
    }
    torch.testing.assert_close(outputs(reloaded), expected, rtol=1e-5, atol=1e-5)


def test_base_embeddings_that_were_changed_are_saved_as_by_peft(tmp_path):
    """PEFT saves them where it finds their last name among the targets."""
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["embed_tokens", "q_proj"], r=2))
    model.base_model.model.model.embed_tokens.weight.data[16:] += 1  # as for new tokens
    assert remove(model, [0, 2]) == ["model.embed_tokens", "model.layers.1.self_attn.q_proj"]
    model.save_pretrained(tmp_path)
    ids = torch.arange(16).reshape(2, 8) + 12
    reloaded = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(reloaded.eval()(ids).logits, model.eval()(ids).logits)


def test_an_embedding_is_named_in_full_where_another_has_its_last_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.text = nn.ModuleDict({"embed_tokens": nn.Embedding(4, 4)})
            self.image = nn.ModuleDict({"embed_tokens": nn.Embedding(4, 4)})

    for keep, expected in (([0], {"text.embed_tokens"}), ([0, 1], {"embed_tokens"})):
        model = get_peft_model(Two(), LoraConfig(target_modules=["embed_tokens"], r=2))
        remove(model, keep)
        assert model.peft_config["default"].target_modules == expected


def test_odd_ranks_can_be_loaded_after_an_orthogonal_start(tmp_path):
    model = lora_bert(r=2, init_lora_weights="orthogonal")
    describe_(model, "default")
    assert model.peft_config["default"].init_lora_weights == "orthogonal"
    expand_(find_adapters(model)[0], 5, "random", None, torch.Generator())
    describe_(model, "default")
    assert model.peft_config["default"].init_lora_weights is True
    model.save_pretrained(tmp_path)
    reloaded = PeftModel.from_pretrained(tiny_bert(), tmp_path)
    assert {adapter.rank for adapter in find_adapters(reloaded, check=False)} == {2, 5}
    torch.testing.assert_close(outputs(reloaded), outputs(model))


def test_pefts_own_lists_name_what_is_left():
    model = lora_mixtral()
    kept = remove(model, [0, 3])
    assert model.base_model.targeted_module_names == kept[:1]
    assert sorted(model.base_model.targeted_parameter_names) == kept[1:]


def test_a_name_that_is_the_end_of_another_is_matched_alone(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.ModuleDict({"proj": nn.Linear(4, 4)})
            self.draft = nn.ModuleDict({"block": nn.ModuleDict({"proj": nn.Linear(4, 4)})})

        def forward(self, x):
            return self.draft["block"]["proj"](self.block["proj"](x))

    model = get_peft_model(Twice(), LoraConfig(target_modules=["proj"], r=2, rank_pattern={"draft.block.proj": 3}))
    describe_(model, "default")
    model.save_pretrained(tmp_path / "both")
    reloaded = PeftModel.from_pretrained(Twice(), tmp_path / "both")
    assert {a.name: a.rank for a in find_adapters(reloaded, check=False)} == {"block.proj": 2, "draft.block.proj": 3}
    remove(model, [0])
    model.save_pretrained(tmp_path / "one")
    assert injected(PeftModel.from_pretrained(Twice(), tmp_path / "one")) == ["block.proj"]


NAMES = st.lists(st.sampled_from(["a", "b", "a_b", "aXb", "1", "11", "a-b"]), min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(NAMES, st.sampled_from([1, 2, 3]), min_size=1, max_size=8))
@example({"a.b": 1, "a_b": 2})
def test_peft_finds_each_value_under_what_is_written(values):
    """Names that end in one another, and dots that PEFT takes for any character."""
    for names in (256, 0):
        with mock.patch.object(outcome, "MOST_NAMES", names):
            default, patterns = outcome.default_and_exceptions(values, max)
        assert default == max(values.values())
        assert {n: patterns.get(get_pattern_key(list(patterns), n), default) for n in values} == values
        assert names or len(patterns) == len(set(values.values())) - 1


def test_exact_names_are_written_plainly():
    values = {f"layers.{layer}.{name}": layer for layer in range(12) for name in ("q_proj", "o-proj")}
    assert outcome.default_and_exceptions(values, max) == (11, {n: v for n, v in values.items() if v != 11})


@given(st.lists(NAMES, min_size=1, max_size=8, unique=True), NAMES)
def test_a_name_with_another_at_its_end_is_found_as_peft_finds_it(targets, name):
    found = bool(check_target_module_exists(LoraConfig(target_modules=targets), name))
    assert (name in targets or outcome._has_suffix_in(name, targets)) == found


def test_the_work_of_a_disconnect_grows_like_the_number_of_modules():
    """By function calls, which no other process disturbs; half the adapters stay, each with an alpha of its own."""

    def calls(blocks: int) -> int:
        base = nn.ModuleDict(
            {str(i): nn.ModuleDict({f"lin{j}": nn.Linear(2, 2) for j in range(6)}) for i in range(blocks)}
        )
        model = get_peft_model(base, LoraConfig(target_modules=[f"lin{j}" for j in range(6)], r=1))
        adapters = find_adapters(model)
        for i, adapter in enumerate(adapters):
            fold_gate_(adapter, 1 + i / 1000)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        profile = cProfile.Profile()
        profile.enable()
        disconnect_(model, adapters[::2], optimizer)
        describe_(model, "default")
        profile.disable()
        return sum(entry.callcount for entry in profile.getstats())

    few, many = calls(10), calls(40)
    assert many / few < 4.4


@pytest.mark.parametrize(
    ("lora", "otherwise"),
    [
        ({}, False),
        ({"use_rslora": True}, True),
        ({"rank_pattern": {"query": 2}}, True),
        ({"alpha_pattern": {"query": 2}}, True),
    ],
)
def test_servers_misread_what_has_not_one_rank_and_one_plain_scaling(lora, otherwise):
    assert outcome.misread(iter(find_adapters(lora_bert(**lora)))) == otherwise


def test_a_config_that_two_adapters_have_is_changed_for_one_of_them_alone():
    """As in TRL's DPO, whose frozen reference has the config of the adapter that trains."""
    model = lora_bert(task_type=None)
    model.add_adapter("reference", model.peft_config["default"])
    assert model.peft_config["reference"] is model.peft_config["default"]
    before = repr(model.peft_config["reference"])
    remove(model, [0, 7], adapter_name="default")
    assert repr(model.peft_config["reference"]) == before
    assert len(model.peft_config["default"].target_modules) == 2


def test_the_config_that_the_user_gave_builds_another_model_with_all_adapters():
    mine = LoraConfig(r=4, target_modules=["query", "value"])
    before = repr(mine)
    model = get_peft_model(tiny_bert(), mine)
    count = len(find_adapters(model))
    remove(model, [0], adapter_name="default")
    assert repr(mine) == before
    assert len(find_adapters(get_peft_model(tiny_bert(), mine))) == count


def test_peft_combines_what_is_left_with_another_adapter():
    model = lora_bert(task_type=None)
    model.add_adapter("other", LoraConfig(r=4, target_modules=["query"]))
    remove(model, [0, 7], adapter_name="default")
    model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "both", combination_type="cat")
    assert set(injected(model, "both")) == {*injected(model), *injected(model, "other")}


def test_the_alpha_that_most_adapters_have_is_the_configs():
    model = lora_bert()
    adapter = find_adapters(model)[2]
    fold_gate_(adapter, 0.5)
    describe_(model, "default")
    config = model.peft_config["default"]
    assert (config.lora_alpha, config.alpha_pattern) == (8, {adapter.name: 4})


def test_up_to_256_exceptions_are_written_by_name():
    for count, written in ((256, 256), (257, 1)):
        values = {f"layer{number:03}": 1 for number in range(count)} | {"last": 2}
        default, patterns = outcome.default_and_exceptions(values, max)
        assert default == 2 and len(patterns) == written
