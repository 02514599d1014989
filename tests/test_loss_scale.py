"""Gates that carry a loss scale which nobody named are an error."""

import pytest
import torch
from models import adamw, batch, lora_bert
from torch import nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.errors import TrainingError

GATES = WeightLoraConfig(selection="stoiht", omega_lr=2.0, keep=3, select_steps=4)


@pytest.mark.parametrize("fused", [False, True])
def test_gates_notice_a_loss_scale_that_nobody_named(fused):
    """Without it, they would move by so many times too much, and the choice would be another one."""
    model = lora_bert()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, fused=fused)
    selector = WeightLora(model, optimizer, GATES)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    def steps(**scale):
        for step in range(2):
            scaler.scale(model(**batch(step)).loss).backward()
            if not fused:  # which takes out the scale in its step
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            selector.step(**scale)
            scaler.update()
            optimizer.zero_grad()

    message = r"gates are [\d,]{6,} times as large as those of the adapters: with a GradScaler, call step\(grad_scale="
    with pytest.raises(TrainingError, match=message):
        steps()
    scaler.update()
    optimizer.zero_grad()
    steps(grad_scale=scaler.get_scale())
    assert selector.step_count == 3


@pytest.mark.parametrize("scale", [None, 1.0, 1024.0])
def test_the_check_ends_with_the_first_step_that_tells(scale):
    model = lora_bert()
    optimizer = adamw(model)
    before = len(optimizer._optimizer_step_pre_hooks)
    selector = WeightLora(model, optimizer, GATES)
    hooks = []
    for step in range(3):
        (model(**batch(step)).loss * (scale or 1.0)).backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale or 1.0
        optimizer.step()
        selector.step(grad_scale=scale)
        optimizer.zero_grad()
        hooks.append(len(optimizer._optimizer_step_pre_hooks) - before)
    assert [first - hooks[-1] for first in hooks] == ([0, 0, 0] if scale == 1024.0 else [1, 0, 0])
    assert selector._rule._scale._factors == []


def test_clipping_is_no_loss_scale():
    model = lora_bert()
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, GATES)
    for step in range(3):
        model(**batch(step)).loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        nn.utils.clip_grad_norm_(model.parameters(), float(norm) / 1000)
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    assert selector.step_count == 3
