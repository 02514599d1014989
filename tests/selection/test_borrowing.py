"""A borrowed model comes back bit for bit: what it holds, and which objects hold it."""

import random

import numpy as np
import pytest
import torch
from models import batch, lora_bert, tiny_bert, tiny_llama
from peft import LoraConfig, get_peft_model
from snapshots import changes, snapshot
from torch import nn

from weightlora.errors import ModelError
from weightlora.selection.borrowing import borrowed


def spoil(model: nn.Module) -> None:
    """Change all that can be changed."""
    for module in list(model.modules()):
        module.train(not module.training)
        module.register_forward_hook(lambda *_: None)
        module.something = 1
    for parameter in model.parameters():
        parameter.requires_grad_(not parameter.requires_grad)
        parameter.grad = torch.ones_like(parameter)
    for buffer in model.buffers():
        buffer.zero_()
    random.random(), np.random.rand(), torch.rand(1)
    model.config.pretraining_tp = 7
    model.config.id2label[0] = "spoiled"
    name, child = next(iter(model.named_children()))
    setattr(model, name, nn.Identity())
    child.extra = nn.Linear(2, 2)
    del model.config.architectures


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_everything_is_put_back_also_after_an_error(error):
    model = tiny_bert()
    model.bert.pooler.eval()
    model(**batch()).loss.backward()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    model.classifier.register_forward_pre_hook(lambda *_: None)
    before = snapshot(model)

    def use() -> None:
        with borrowed(model):
            assert all(parameter.grad is None for parameter in model.parameters())
            spoil(model)
            if error is not None:
                raise error

    if error is None:
        use()
    else:
        with pytest.raises(error):
            use()
    assert changes(model, before) == []


def test_values_that_were_kept_are_put_back():
    model = tiny_bert()
    before = snapshot(model)
    with borrowed(model) as lender:
        lender.keep_values(model.parameters())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
    assert changes(model, before) == []


def test_hooks_that_step_an_optimizer_wait_until_the_model_is_given_back():
    model, stepped = tiny_bert(), []
    model.classifier.weight.register_post_accumulate_grad_hook(lambda parameter: stepped.append(parameter.shape))
    with borrowed(model):
        model(**batch()).loss.backward()
    assert stepped == []
    model(**batch()).loss.backward()
    assert len(stepped) == 1


def test_a_frozen_weight_that_changed_is_named_and_all_else_is_put_back():
    """RWKV's forward pass in training undoes the rescaling of its weights for inference, which no flag brings back."""
    model = tiny_bert().train()
    model.requires_grad_(False)
    message = r"the forward pass changed the frozen weight 'bert.pooler.dense.weight'"
    with pytest.raises(ModelError, match=message), borrowed(model):
        model.eval()
        model.bert.pooler.dense.weight.mul_(2)
    assert model.training
    with borrowed(model) as lender:
        lender.keep_values([model.bert.pooler.dense.weight])
        model.bert.pooler.dense.weight.mul_(2)


def test_peft_leaves_nothing_behind_on_a_model_that_it_adapted():
    """PEFT writes into the config of a Llama, and keeps its own beside it."""
    model = tiny_llama()
    model.config.pretraining_tp = 2
    model.gradient_checkpointing_enable()
    before = snapshot(model)
    with borrowed(model):
        get_peft_model(model, LoraConfig(target_modules="all-linear", modules_to_save=["lm_head"]))
        assert changes(model, before)
    assert changes(model, before) == [] and not hasattr(model, "peft_config")


@pytest.mark.slow
def test_the_snapshot_sees_each_change():
    """What the other tests compare would differ."""
    ways = {
        "a weight": lambda m: m.classifier.weight.data.add_(1e-7),
        "a buffer": lambda m: m.bert.embeddings.position_ids.add_(1),
        "a hook": lambda m: m.classifier.register_forward_hook(lambda *_: None),
        "an attribute": lambda m: setattr(m.classifier, "note", 1),
        "a module": lambda m: setattr(m, "dropout", nn.Dropout(0.0)),
        "training": lambda m: m.bert.train(False),
        "requires_grad": lambda m: m.classifier.weight.requires_grad_(False),
        "a gradient": lambda m: setattr(m.classifier.weight, "grad", torch.zeros_like(m.classifier.weight)),
        "the config": lambda m: setattr(m.config, "hidden_act", "relu"),
        "PEFT's config": lambda m: setattr(m.peft_config["default"], "r", 5),
        "a scaling": lambda m: m.bert.encoder.layer[0].attention.self.query.scaling.clear(),
        "torch's numbers": lambda m: torch.rand(1),
        "NumPy's numbers": lambda m: np.random.rand(),
        "Python's numbers": lambda m: random.random(),
    }
    for what, change in ways.items():
        model = lora_bert().base_model.model if "PEFT" not in what else lora_bert()
        before = snapshot(model)
        assert changes(model, before) == [], what
        change(model)
        assert changes(model, before), what
