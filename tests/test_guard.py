"""Steps along NaN are not made, however an optimizer is called and whatever its gradients are."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from architectures import ARCHITECTURES
from models import lora_bert
from peft import LoraConfig, get_peft_model
from torch import nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.errors import TrainingError
from weightlora.guard import StepGuard, are_finite


def start(kind=torch.optim.SGD, **settings):
    model = nn.Linear(2, 1)
    optimizer = kind(model.parameters(), lr=0.1, **settings)
    return model, optimizer, StepGuard(optimizer, model.named_parameters)


def test_what_nobody_asked_for_is_found_at_the_next_step():
    model, optimizer, guard = start()
    model(torch.ones(2)).backward()
    optimizer.step()
    guard.check_seen()  # one step may be due
    optimizer.step()
    with pytest.raises(TrainingError, match="made several steps"):
        guard.check_seen()


def test_a_step_is_noted_once():
    model, optimizer, guard = start()
    assert not guard.take()
    model(torch.ones(2)).backward()
    optimizer.step()
    assert guard.take() and not guard.take()


@pytest.mark.parametrize("fused", [False, True])
def test_several_steps_are_refused_but_not_several_calls_of_a_closure(fused):
    model, optimizer, guard = start(fused=fused)
    if fused:
        optimizer.found_inf = torch.tensor(0.0)
    model(torch.ones(2)).backward()
    for steps in (2, 3):
        for _ in range(steps):
            optimizer.step()
        with pytest.raises(
            TrainingError, match=r"^the optimizer has made several steps since .* each optimizer\.step"
        ):
            guard.take()
        assert not guard.take()

    model, optimizer, guard = start(torch.optim.LBFGS, max_iter=4)
    calls = []

    def closure():
        optimizer.zero_grad()
        calls.append(loss := (model(torch.ones(2)) - 3.0).square().sum())
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(calls) > 1 and guard.take()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("by", ["itself", "closure", "keyword", "LBFGS"])
def test_a_bad_gradient_is_found_before_the_step_by_name_also_where_a_closure_brings_it(by, bad):
    model, optimizer, guard = start(torch.optim.LBFGS if by == "LBFGS" else torch.optim.SGD)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2)).sum()
        loss.backward()
        model.bias.grad.fill_(bad)
        return loss

    guard.go_back = lambda: "go home"
    if by == "itself":
        closure()
    message = r"^the gradient of 'bias' is NaN or infinite: training has diverged, .*, and go home\.$"
    with pytest.raises(TrainingError, match=message):
        {"itself": optimizer.step, "keyword": lambda: optimizer.step(closure=closure)}.get(
            by, lambda: optimizer.step(closure)
        )()
    assert not guard.take()
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_a_bad_gradient_outside_of_the_model_is_not_blamed_on_another_process():
    model, head = nn.Linear(2, 1), nn.Linear(1, 1)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.1)
    guard = StepGuard(optimizer, model.named_parameters)
    head(model(torch.ones(2)).detach()).mul(math.nan).backward()
    with pytest.raises(
        TrainingError, match=r"^a gradient of a parameter outside of this model is NaN or infinite: tr"
    ):
        optimizer.step()
    assert not guard.take()


@pytest.mark.parametrize("by", ["closure", "keyword"])
def test_a_closure_is_called_once_and_its_loss_returned(by):
    model, optimizer, guard = start()
    calls = []

    def closure():
        calls.append(by)
        loss = model(torch.ones(2)).sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure) if by == "closure" else optimizer.step(closure=closure)
    assert len(calls) == 1 and loss.isfinite() and guard.take()


def test_a_step_that_a_fused_optimizer_is_told_to_skip_is_none():
    model, optimizer, guard = start(fused=True)
    for found in (0.0, 1.0):
        model(torch.ones(2)).backward()
        model.bias.grad.fill_(math.inf)
        optimizer.found_inf = torch.tensor(found)
        optimizer.step()
        assert guard.take() == (found == 0.0) and guard.is_spoiled()
    optimizer.step()  # is told to do nothing
    del optimizer.found_inf
    model.bias.grad.zero_()
    optimizer.step()
    assert guard.take() and not guard.take()


def test_what_a_fused_optimizer_is_told_is_read_when_it_is_asked_for():
    """To read it, the host waits for the accelerator, and after the choice nobody asks."""
    read = []

    class Told:
        def __bool__(self):
            read.append(1)
            return False

    guard = start()[2]
    guard._before_step(SimpleNamespace(found_inf=Told()), (), {})
    assert not read
    assert guard.take() and read == [1]


def test_what_any_process_finds_stops_all_until_the_choice():
    model, optimizer = start()[:2]
    guard = StepGuard(optimizer, model.named_parameters, lambda found: found + 0.5)
    model(torch.ones(2)).backward()
    with pytest.raises(TrainingError, match=r"^a gradient of another process is NaN or infinite: training has"):
        optimizer.step()
    guard.leave_others()
    optimizer.step()
    assert guard.take() and not guard.is_spoiled()


def test_finite_gradients_of_any_kind_are_finite():
    large = torch.full((1000,), 60000.0, dtype=torch.float16)  # their sum is not
    sparse = torch.sparse_coo_tensor([[1]], [2.0], (3,))
    kinds = [None, large, torch.full((9,), 3e38), torch.zeros(0), torch.tensor(1.0, dtype=torch.bfloat16), sparse]
    assert are_finite([]) and are_finite([None]) and are_finite(kinds)
    for kind in kinds[1:3] + kinds[4:]:
        bad = kind.clone()
        (bad._values() if bad.is_sparse else bad.view(-1))[-1] = math.nan
        assert not are_finite([*kinds, bad])


def test_a_scaler_skipped_a_step_if_it_lowers_its_scale_or_a_gradient_is_bad():
    model, _, guard = start()
    model(torch.ones(2)).backward()
    message = r"has not stepped .*: call it after optimizer\.step\(\), .*sync_gradients .*, with grad_scale=scaler"
    with pytest.raises(TrainingError, match=message):
        guard.check_steps(False, None)
    guard.check_steps(False, 8.0)
    guard.check_steps(False, 4.0)
    guard.check_steps(True, 2.0)
    for stepped in (False, True):  # a micro-batch, and a call before the step: nothing was skipped
        guard.check_steps(False, 2.0)
        with pytest.raises(TrainingError, match=message):
            guard.check_steps(stepped, 2.0)
        guard.check_steps(True, 1.0)
    model.bias.grad.fill_(math.inf)
    for _ in range(2):
        guard.check_steps(False, 2.0)  # of a scaler with a constant scale
    guard.check_steps(True, 2.0)


def test_a_selection_that_is_given_up_leaves_no_guard_on_the_optimizer():
    """Such as by a notebook's cell that runs again."""
    model = lora_bert(layers=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(3):
        WeightLora(model, optimizer, WeightLoraConfig(keep=1, selection="random", select_steps=2))
        found.append(len(optimizer._optimizer_step_pre_hooks))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_model_whose_adapters_get_no_gradient_is_told_of_at_the_first_step(reentrant, scales):
    """Transformers gives pixels no gradient, so reentrant checkpointing trains the head alone.

    A fused optimizer takes out the loss scale itself.
    """
    torch.manual_seed(0)
    vit = ARCHITECTURES["ViT"]
    model = get_peft_model(vit.build(), LoraConfig(**vit.lora)).train()
    model.base_model.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=scales)
    scaler = torch.amp.GradScaler("cpu", enabled=scales)
    WeightLora(model, optimizer, WeightLoraConfig(keep=3, selection="random", select_steps=0))
    found = []
    for _ in range(3):
        scaler.scale(model(**vit.batch()).loss).backward()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scaler.step(optimizer) if scales else optimizer.step()
        scaler.update()
        found.append([str(one.message) for one in caught if one.filename == __file__])
        optimizer.zero_grad()
    message = (
        "none of the 6 parameters of adapters got a gradient at the first optimizer step, and others did, so "
        "adapters are not trained: set use_reentrant=False if you use gradient checkpointing."
    )
    assert found == [[message] if reentrant else [], [], []]
