"""What a look at a model changed is put back, also after an error."""

import random
from collections import Counter, defaultdict, deque

import numpy as np
import pytest
import torch
from torch import nn

from weightlora.restoring import (
    no_steps_in_backward,
    refill,
    same_buffers,
    same_fields,
    same_modes,
    same_parameters,
    same_random_numbers,
)


class Recurrent(nn.Module):
    """Counts its calls in a buffer, fills one that is None, keeps a list and a tensor, makes an attribute and a part.

    It also replaces a part, as BigBird does with its attention in a short batch, and adds a hook, as Transformers
    does where hidden states are asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.BatchNorm1d(2), nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("quantized", torch.ones(3, dtype=torch.uint8))
        self.register_buffer("table", None)
        self.states, self.positions = [1], torch.zeros(2)
        self.losses = {"train": defaultdict(list)}
        self.losses["itself"] = self.losses
        self.counts, self.seen = Counter(calls=3), {0}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        self.table = x
        self.states.append(2)
        self.positions += 1
        self.losses["train"]["loss"].append(1.0)
        self.counts["calls"] += 1
        self.seen.add(1)
        self.made = x
        self.attention, self.added = nn.Identity(), nn.Identity()
        self.norm.register_forward_hook(lambda *args: None, with_kwargs=True)
        return self.norm(x)


@pytest.mark.parametrize("holder", [[1, 2], deque([1, 2]), {"a": 1}, {1, 2}], ids=lambda one: type(one).__name__)
def test_a_container_gets_its_content_back(holder):
    content = holder.copy()
    holder.clear()
    refill(holder, content)
    assert holder == content and len(holder) > 0


@pytest.mark.parametrize("fails", [False, True])
def test_buffers_fields_and_modes_are_as_before(fails):
    model = Recurrent()
    model.norm.eval()
    states, positions, calls, quantized = model.states, model.positions, model.calls, model.quantized
    losses = model.losses["train"]
    parts = [*model.named_children()]
    try:
        with same_modes(model), same_fields(model.modules()), same_buffers(model):
            model.train()
            model(torch.rand(4, 2))
            assert model.calls is not calls and model.norm.running_mean.any() and len(states) == 2
            if fails:
                raise RuntimeError("out of memory")
    except RuntimeError:
        assert fails
    assert model.training and not model.norm.training
    assert model.counts == Counter(calls=3) and model.seen == {0}
    assert model.table is None and "table" not in model.state_dict()
    assert model.calls is calls and calls == 0 and model.quantized is quantized
    assert not model.norm.running_mean.any() and model.norm.num_batches_tracked == 0
    assert model.states is states and states == [1] and model.positions is positions and not positions.any()
    assert not hasattr(model, "made") and model.losses["train"] is losses == {}
    assert [*model.named_children()] == parts
    assert not model.norm._forward_hooks and not model.norm._forward_hooks_with_kwargs


def test_hooks_that_step_an_optimizer_in_the_backward_pass_wait():
    model, seen = nn.Linear(2, 2), []
    handle = model.weight.register_post_accumulate_grad_hook(
        lambda parameter: seen.append(parameter.grad.sum().item())
    )

    def backward() -> None:
        model(torch.ones(1, 2)).sum().backward()

    with pytest.raises(RuntimeError, match="out of memory"), no_steps_in_backward(model):
        backward()
        raise RuntimeError("out of memory")
    assert seen == []
    backward()
    handle.remove()
    backward()
    assert seen == [8.0]


def test_hooks_by_which_an_engine_saves_stay():
    """FSDP2 adds them in its first pass, and not again."""
    model = nn.Linear(2, 2)
    with same_fields(model.modules()):
        model.register_state_dict_pre_hook(lambda *args: None)
        model.register_load_state_dict_pre_hook(lambda *args: None)
    assert len(model._state_dict_pre_hooks) == len(model._load_state_dict_pre_hooks) == 1


def test_random_numbers_come_as_if_none_had_been_drawn():
    def drawn() -> list[float]:
        return [random.random(), np.random.random(), torch.rand(1).item()]

    with same_random_numbers(nn.Linear(2, 2)):
        inside = drawn()
    assert drawn() == inside


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (random.Random(1), lambda one: one.random()),
        (np.random.RandomState(1), lambda one: one.random()),
        (np.random.default_rng(1), lambda one: one.random()),
        (torch.Generator().manual_seed(1), lambda one: torch.rand(1, generator=one).item()),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_generator_of_a_module_draws_as_if_nothing_had_been_drawn(generator, draw):
    """Of its own noise or dropout, for example."""
    model = nn.Linear(2, 2)
    model.generator = generator
    with same_fields(model.modules()):
        inside = [draw(generator) for _ in range(3)]
    assert [draw(generator) for _ in range(3)] == inside


def test_parameters_that_were_replaced_are_back_with_the_new_values():
    model = nn.ModuleDict({"a": nn.Linear(2, 2, dtype=torch.bfloat16), "b": nn.Linear(2, 2, bias=False)})
    before = dict(model.named_parameters())
    with same_parameters(model):
        model["a"].weight = nn.Parameter(torch.full((2, 2), 0.5))
        model["a"].bias.data = torch.full((2,), 3.0)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    assert after["a.weight"].dtype == after["a.bias"].dtype == torch.bfloat16
    assert after["a.weight"].eq(0.5).all() and after["a.bias"].eq(3).all()
