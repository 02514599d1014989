"""Random weights that no adapter contains are found, and nothing else is taken for them."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from models import adamw, tiny_llama
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from weightlora import WeightLora, WeightLoraConfig, select
from weightlora.fresh import fresh_modules, moving_norms

SHAPE = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=2
)
CHOICE = WeightLoraConfig(keep=3, selection="random", select_steps=0)
POOLER, HEAD = "bert.pooler.dense", "classifier"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a pooler and a head, as those of language models are."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("fresh") / "bert"
    BertModel(SHAPE, add_pooling_layer=False).save_pretrained(path)
    return path


def loaded(checkpoint: Path, **more) -> BertForSequenceClassification:
    return BertForSequenceClassification.from_pretrained(checkpoint, num_labels=2, **more)


def adapted(model: nn.Module, **lora) -> PeftModel:
    return get_peft_model(model, LoraConfig(**{"r": 2, "target_modules": "all-linear"} | lora))


@pytest.mark.parametrize(
    ("lora", "fresh"),
    [
        ({}, [POOLER, HEAD]),
        ({"target_modules": ["query"]}, [POOLER, HEAD]),
        ({"task_type": "SEQ_CLS"}, [POOLER]),
        ({"modules_to_save": ["pooler"]}, [HEAD]),
        ({"task_type": "SEQ_CLS", "modules_to_save": ["pooler.dense"]}, []),
    ],
)
def test_random_weights_are_named_unless_peft_saves_them(lora: dict, fresh: list[str], checkpoint: Path):
    assert fresh_modules(adapted(loaded(checkpoint), **lora)) == fresh


def test_models_without_random_weights(checkpoint: Path, tmp_path: Path):
    assert fresh_modules(loaded(checkpoint)) == [POOLER, HEAD]
    assert fresh_modules(loaded(checkpoint).to(torch.float64)) == [POOLER, HEAD], "the marks stay"
    loaded(checkpoint).save_pretrained(tmp_path)
    assert fresh_modules(loaded(tmp_path)) == []
    assert fresh_modules(BertForSequenceClassification(SHAPE)) == [], "no checkpoint, so nothing is missing"
    assert fresh_modules(copy.deepcopy(loaded(checkpoint))) == [], "copies have no marks"
    assert fresh_modules(nn.Sequential(nn.Linear(2, 2))) == []


def test_an_output_layer_that_grew_with_the_vocabulary_is_left_to_peft(tmp_path: Path):
    tiny_llama().save_pretrained(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path)
    model.resize_token_embeddings(60)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert fresh_modules(model) == fresh_modules(adapted(model, target_modules=["lm_head", "q_proj"])) == []
    assert fresh_modules(LlamaForSequenceClassification.from_pretrained(tmp_path)) == ["score"]


def test_a_selection_warns_of_what_the_next_one_who_loads_the_adapter_lacks(checkpoint: Path, tmp_path: Path):
    ids = torch.arange(12).view(2, 6)

    def outputs(**lora) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = adapted(loaded(checkpoint), task_type="SEQ_CLS", **lora)
        WeightLora(model, adamw(model), CHOICE)
        model.save_pretrained(tmp_path)
        torch.manual_seed(1)
        again = PeftModel.from_pretrained(loaded(checkpoint), tmp_path)
        with torch.no_grad():
            return model.eval()(ids).logits, again.eval()(ids).logits

    match = r"has no weights of bert\.pooler\.dense, so they are random, and PEFT does not save them"
    with pytest.warns(UserWarning, match=match):
        mine, theirs = outputs()
    assert not torch.allclose(mine, theirs)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the checkpoint of the model")
        mine, theirs = outputs(modules_to_save=["pooler"])
    assert torch.equal(mine, theirs)


def test_select_trains_random_weights_in_full_and_names_them(checkpoint: Path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the checkpoint of the model")
        choice = select(loaded(checkpoint), [], CHOICE, progress=False)
    assert choice.modules_to_save == [POOLER] and POOLER not in choice.scores
    assert '    modules_to_save=[\n        "bert.pooler.dense",\n    ],\n' in choice.to("peft")


def test_a_quantized_base_has_random_weights_too(checkpoint: Path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["classifier", "pooler"])
    assert fresh_modules(loaded(checkpoint, quantization_config=quantization)) == [POOLER, HEAD]


class Normed(nn.Module):
    """Two layers with batch normalization, of which `train()` can be told to leave the first in evaluation mode."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.fixed, self.low, self.high = fixed, nn.Linear(4, 4), nn.Linear(4, 4)
        self.first, self.second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.second(self.high(self.first(self.low(x))))

    def train(self, mode: bool = True):
        super().train(mode)
        self.first.training &= not self.fixed
        return self


@pytest.mark.parametrize(
    ("fixed", "saved", "moving"),
    [
        (False, None, ["first", "second"]),
        (True, None, ["second"]),
        (False, ["second"], ["first"]),
        (True, ["second"], []),
        (False, ["first", "second"], []),
    ],
)
def test_running_statistics_that_no_adapter_contains_are_found(fixed, saved, moving, tmp_path):
    torch.manual_seed(0)
    base = Normed(fixed).eval()
    lora = LoraConfig(target_modules=["low", "high"], modules_to_save=saved)
    model = get_peft_model(copy.deepcopy(base), lora)
    before = [module.training for module in model.modules()]
    assert moving_norms(model) == moving and [module.training for module in model.modules()] == before
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WeightLora(model, adamw(model), WeightLoraConfig(keep=1, selection="random", select_steps=0))
    said = [str(one.message) for one in caught if "running statistics of" in str(one.message)]
    assert len(said) == bool(moving) and all(repr(moving[0]) in one for one in said)
    x = torch.randn(8, 4)
    model.train()(x)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base, tmp_path)
    assert torch.equal(again.eval()(x), model.eval()(x)) == (not moving)
