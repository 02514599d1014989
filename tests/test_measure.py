import gc

import pytest
import torch
from accelerate import Accelerator
from models import adamw, batch, lora_bert, train
from selections import start
from torch import nn

from weightlora.measure import (
    model_bytes,
    optimizer_state_bytes,
    peak_allocated_bytes,
    saved_activation_bytes,
    trainable_parameters,
)


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def test_trainable_parameters_leaves_out_the_frozen_and_counts_the_shared_once():
    model = two_layers()
    assert trainable_parameters(model) == 4 * 8 + 8 + 8 * 2 + 2
    model[0].weight.requires_grad_(False)
    assert trainable_parameters(model) == 8 + 8 * 2 + 2
    model.append(model[2])
    assert trainable_parameters(model) == 8 + 8 * 2 + 2


def test_optimizer_state_of_adam_is_two_moments_and_a_step_counter_a_parameter():
    model = nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    assert optimizer_state_bytes(optimizer) == 0
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    expected = 4 * (2 * (3 * 4 + 4) + 2)
    assert optimizer_state_bytes(optimizer) == expected
    assert optimizer_state_bytes(Accelerator().prepare_optimizer(optimizer)) == expected


def test_optimizer_state_in_lists_is_found():
    weight = nn.Parameter(torch.ones(5))
    optimizer = torch.optim.SGD([weight])
    optimizer.state[weight] = {"history": [torch.ones(5), {"more": torch.ones(2, dtype=torch.float64)}], "count": 3}
    assert optimizer_state_bytes(optimizer) == 5 * 4 + 2 * 8


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [
        ([], 5 * 4 * 4 + 5 * 8 * 4),  # the input; tanh's output, which both it and the second layer save
        ([0], 5 * 8 * 4),  # the second layer's input alone
        ([2], 5 * 4 * 4 + 5 * 8 * 4),  # the frozen weight is saved too, but it is there anyway
        ([0, 2], 0),
    ],
)
def test_saved_activations_of_two_layers(frozen: list[int], expected: int):
    model = two_layers()
    for index in frozen:
        model[index].requires_grad_(False)
    assert saved_activation_bytes(model, {"input": torch.ones(5, 4)}) == expected


class Views(nn.Module):
    """Saves three views of one storage, and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("mask", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum((self.weight * part).sum() for part in (x[0], x[1:], x.T)) + (self.weight * self.mask).sum()


def test_a_storage_counts_once_and_whole_and_buffers_not_at_all():
    assert saved_activation_bytes(Views(), {"x": torch.ones(6, 3)}) == 6 * 3 * 4
    assert saved_activation_bytes(Views(), {"x": torch.ones(6, 3)[:2]}) == 6 * 3 * 4


class Noisy(nn.Module):
    """Draws random numbers, and keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout, self.frozen = nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, fail: bool = False) -> torch.Tensor:
        x = self.frozen(self.dropout(self.norm(x)))
        if fail:
            raise RuntimeError("broken")
        return x


@pytest.mark.parametrize("fail", [False, True])
def test_everything_is_left_as_found(fail: bool):
    model = Noisy().train()
    model.frozen.eval()
    model.norm.weight.grad = torch.full((3,), 7.0)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    if fail:
        with pytest.raises(RuntimeError, match="broken"):
            saved_activation_bytes(model, {"x": torch.rand(4, 3), "fail": True})
        torch.set_rng_state(state)  # torch.rand above drew from it
    else:
        x = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
        assert saved_activation_bytes(model, {"x": x}) == saved_activation_bytes(model, {"x": x}) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert model.norm.weight.grad.tolist() == [7, 7, 7] and model.norm.bias.grad is None
    assert {name: value.tolist() for name, value in model.named_buffers()} == {
        name: value.tolist() for name, value in buffers.items()
    }


def test_the_training_forward_is_measured_whatever_the_mode():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    bytes_in_training = saved_activation_bytes(model.train(), {"input": torch.ones(2, 3)})
    assert saved_activation_bytes(model.eval(), {"input": torch.ones(2, 3)}) == bytes_in_training
    assert bytes_in_training > 2 * 3 * 4  # the dropout mask is part of it
    assert not model.training


def test_after_the_disconnect_a_model_costs_what_lora_on_the_kept_modules_costs():
    model, optimizer, selector = start(lora_bert(dropout=0.1), keep=3, select_steps=1, selection="random")
    before = saved_activation_bytes(model, batch())
    train(model, optimizer, selector, steps=1)
    direct = lora_bert(dropout=0.1, target_modules=selector.kept)
    direct_optimizer = adamw(direct)
    train(direct, direct_optimizer)
    assert saved_activation_bytes(model, batch()) == saved_activation_bytes(direct, batch()) < before
    assert trainable_parameters(model) == trainable_parameters(direct)
    assert optimizer_state_bytes(optimizer) == optimizer_state_bytes(direct_optimizer)


def test_model_bytes_are_of_parameters_and_buffers_once():
    model = two_layers()
    model.register_buffer("scale", torch.ones(7, dtype=torch.float16))
    model[0].weight.requires_grad_(False)
    model.append(model[2])
    assert model_bytes(model) == 4 * (4 * 8 + 8 + 8 * 2 + 2) + 2 * 7


def test_the_peak_is_the_worst_moment_above_what_was_there():
    before = torch.ones(10_000)

    def step():
        first = torch.ones(1000)
        second = torch.ones(5000)
        del first
        third = torch.ones(300)
        return second, third, before[:10].sum()

    assert peak_allocated_bytes(step, torch.device("cpu")) == 4 * 6000
    assert peak_allocated_bytes(lambda: None, torch.device("cpu")) == 0


def test_the_peak_of_a_training_step_holds_activations_and_gradients():
    model = lora_bert()
    optimizer = adamw(model)
    train(model, optimizer)
    saved = saved_activation_bytes(model, batch(1))
    peak = peak_allocated_bytes(lambda: train(model, optimizer, start=1), torch.device("cpu"))
    assert saved < peak < 2 * saved
    assert peak == peak_allocated_bytes(lambda: train(model, optimizer, start=1), torch.device("cpu"))


def test_measuring_keeps_no_activation_alive():
    model = lora_bert()

    def alive() -> int:
        gc.collect()
        return sum(torch.is_tensor(item) for item in gc.get_objects())

    saved_activation_bytes(model, batch())
    before = alive()
    saved_activation_bytes(model, batch())
    assert alive() == before
