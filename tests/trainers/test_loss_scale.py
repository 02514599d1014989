"""The loss scale of mixed precision: it changes no evidence, and a step that the scaler skips is none."""

import math

import pytest
import torch
from loops import RULES, assert_same_history, by_hand, make_trainer
from models import lora_bert
from runs import At
from transformers import Trainer

from weightlora import WeightLoraCallback, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.trainers.guest import Guest


class Scaled(Trainer):
    """Mixed precision's loss scaling on a CPU: Accelerate's own path, with a real scaler. Spoils some steps."""

    loss_infinite_at: int | None = None
    head_infinite_at: int | None = None

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        return loss * math.inf if self.model.training and self.state.global_step == self.loss_infinite_at else loss

    def training_step(self, model, *args, **kwargs):
        loss = super().training_step(model, *args, **kwargs)
        if self.state.global_step == self.head_infinite_at:
            model.base_model.model.classifier.modules_to_save["default"].weight.grad.fill_(math.inf)
        return loss


@pytest.mark.parametrize("rule", ["credit", "gates"])
def test_a_loss_scale_changes_no_evidence(tmp_path, rule):
    callback = WeightLoraCallback(WeightLoraConfig(**RULES[rule]))
    run = make_trainer(tmp_path, lora_bert(), callback, kind=Scaled)
    run.train()
    assert run.optimizer.scaler.get_scale() == 2.0**10
    assert_same_history(callback.selector, by_hand(callback.config), rtol=1e-3)


@pytest.mark.parametrize("scale", [2.0**10, 1.0])
@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ("credit", "loss"),
        ("gates", "loss"),
        ("credit", "head"),
        ("gates", "head"),
        ("chance", "head"),
    ],
)
def test_a_step_that_the_scaler_skips_is_no_selection_step(tmp_path, rule, where, scale):
    """The selection takes its four steps all the same, one later."""
    ended = []
    callback = WeightLoraCallback(WeightLoraConfig(**RULES[rule]))
    watch = At(4, lambda model, **kwargs: ended.append(len(find_adapters(model))))
    run = make_trainer(tmp_path, lora_bert(), callback, watch, kind=Scaled)
    setattr(run, f"{where}_infinite_at", 2)
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    run.train()
    assert run.optimizer.scaler.get_scale() == scale / 2, "one step was skipped"
    assert ended == [12]
    assert callback.selector.step_count == 4
    assert [entry["step"] for entry in callback.selector.history] == [1, 2, 3, 4, 4]
    assert len(callback.selector.kept) == 3


def test_without_a_scaler_or_with_a_disabled_one_there_is_no_scale():
    guest = Guest(None, print, "train()", "")
    for scaler in (None, torch.amp.GradScaler("cpu", enabled=False)):
        guest.note_scale(scaler)
        assert guest._grad_scale is None
    guest.note_scale(torch.amp.GradScaler("cpu", init_scale=1.0))
    assert guest._grad_scale == 1.0
