from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from models import adamw, batch, lora_bert, lora_zoo, train
from operations import Operations
from torch import nn
from torch._subclasses import FakeTensorMode

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.rules.credit import UpdateCredit
from weightlora.tensors import forget_whole_, note_whole_


def begun():
    """A model, its adapters and optimizer, and the rule before the first step."""
    model = lora_bert()
    adapters, optimizer = find_adapters(model), adamw(model)
    return model, adapters, optimizer, UpdateCredit(adapters, optimizer, WeightLoraConfig(keep=1, select_steps=4))


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=1.0), lambda p: torch.optim.AdamW(p, lr=2e-4)])
def test_credits_add_up_to_the_loss_decrease(make):
    """Completeness: on a full batch, with small steps, within 2 %; the head is frozen, so adapters did all of it."""
    model = lora_bert(task_type=None).eval()
    with torch.no_grad():
        for adapter in find_adapters(model):
            adapter.factors[1].normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    decrease, credits = decrease_and_credits(model, make([p for p in model.parameters() if p.requires_grad]))
    assert decrease > 1e-2
    assert sum(credits) == pytest.approx(decrease, rel=0.02)


@pytest.mark.slow
def test_doras_credits_add_up_with_the_norm_that_pefts_gradient_leaves_out():
    """Without the norm's part they add up to more than twice the decrease."""
    model = lora_bert(layers=1, task_type=None, use_dora=True).eval()
    decrease, credits = decrease_and_credits(model, adamw(model, lr=1e-3, weight_decay=0.0), steps=100)
    assert decrease > 2e-3
    assert sum(credits) == pytest.approx(decrease, rel=0.03)


def decrease_and_credits(model, optimizer, steps: int = 200) -> tuple[float, list[float]]:
    """Of training on one batch."""
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=1000))
    first = model(**batch()).loss.item()
    for _ in range(steps):
        model(**batch()).loss.backward()
        optimizer.step()
        selector.step()
        optimizer.zero_grad()
    return first - model(**batch()).loss.item(), list(selector.scores.values())


def test_one_step_by_hand():
    model, adapters, optimizer, credit = begun()
    before = [[p.detach().clone() for p in adapter.parameters] for adapter in adapters]
    model(**batch()).loss.backward()
    optimizer.step()
    expected = [
        -sum(float((p.grad * (p - old)).sum()) for p, old in zip(adapter.parameters, olds, strict=True))
        for adapter, olds in zip(adapters, before, strict=True)
    ]
    taken = credit.take(1.0)
    assert taken.tolist() == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_default_dtype_of_the_user_changes_no_credit(dtype):
    found = []
    for default in (torch.float32, dtype):
        model, _, optimizer, credit = begun()
        torch.set_default_dtype(default)
        try:
            train(model, optimizer, steps=2)
            found.append(credit.take(1.0))
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(*found) and bool(found[0].all())


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("with_closure", [False, True])
def test_an_optimizer_may_overwrite_the_gradients_in_its_step(with_closure, dora):
    """As SGD with Nesterov does where it moves all parameters at once, and schedule-free optimizers do."""
    taken = []
    for foreach in (False, True):
        model = lora_bert(layers=1, use_dora=dora)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, foreach=foreach)
        credit = UpdateCredit(find_adapters(model), optimizer, WeightLoraConfig(keep=1, select_steps=4))

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(**batch()).loss
            loss.backward()
            return loss

        if not with_closure:
            closure()
        gradient = parameters[1].grad
        before = None if gradient is None else gradient.clone()
        optimizer.step(closure) if with_closure else optimizer.step()
        assert before is None or torch.equal(parameters[1].grad, before) != foreach, "the test would show nothing"
        taken.append(credit.take(1.0))
    assert taken[1].tolist() == pytest.approx(taken[0].tolist(), rel=1e-5) and bool((taken[0] > 0).any())


def test_a_loss_scale_that_the_optimizer_takes_out_itself_changes_no_credit():
    """A fused one does so in its step: before it, the gradients are those of the scaled loss."""
    taken = []
    for scale in (1.0, 1024.0):
        model = lora_bert(layers=1)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, fused=True)
        credit = UpdateCredit(find_adapters(model), optimizer, WeightLoraConfig(keep=1, select_steps=4))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(model(**batch()).loss).backward()
        scaler.step(optimizer)
        taken.append(credit.take(scale))
    assert taken[1].tolist() == pytest.approx(taken[0].tolist(), rel=1e-5) and bool((taken[0] > 0).any())


def test_only_adapters_that_take_part_get_credit():
    model, adapters, optimizer, credit = begun()
    model(**batch()).loss.backward()
    for parameter in adapters[0].parameters:
        parameter.grad = None
    optimizer.step()
    taken = credit.take(1.0)
    assert taken[0] == 0 and (taken[1:] > 0).all()


def test_a_part_of_a_factor_stands_for_all_of_its_parts():
    """The mean over the processes is then the whole."""
    taken = []
    for cut in ((), (2,)):
        model, adapters, optimizer, credit = begun()
        factors = [factor for place in cut for factor in adapters[place].factors]
        for factor in factors:
            note_whole_(factor, 4 * factor.numel(), 4)
        model(**batch()).loss.backward()
        optimizer.step()
        taken.append(credit.take(1.0).tolist())
        for factor in factors:
            forget_whole_(factor)
    whole, part = taken
    assert part == [4 * value if place == 2 else value for place, value in enumerate(whole)] and whole[2] != 0


def test_those_that_stay_go_on_with_their_own_credit():
    model, adapters, optimizer, credit = begun()
    model(**batch()).loss.backward()
    optimizer.step()
    credit.update(credit.take(1.0), 1, None)
    score, mask = credit.score, torch.arange(12) % 4 == 1
    credit.keep(mask)
    assert torch.equal(credit.score, score[mask])
    before = [[p.detach().clone() for p in adapter.parameters] for adapter in adapters]
    optimizer.step()
    expected = [
        -sum(float((p.grad * (p - old)).sum()) for p, old in zip(adapter.parameters, olds, strict=True))
        for adapter, olds in zip(adapters, before, strict=True)
    ]
    assert credit.take(1.0).tolist() == pytest.approx([expected[place] for place in (1, 5, 9)], rel=1e-4)


def test_the_order_of_calls_is_checked():
    model = lora_bert()
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=5))
    with pytest.raises(ValueError, match=r"optimizer has not stepped before each step\(\)"):
        selector.step()
    optimizer.step()
    with pytest.raises(ValueError, match=r"no adapter has a gradient: call step\(\) after .* and before zero_grad"):
        selector.step()
    assert selector.step_count == 0 and selector.history == []


def test_a_skipped_amp_step_is_skipped():
    model = lora_bert()
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=5))
    (model(**batch()).loss * float("inf")).backward()
    selector.step(grad_scale=1024.0)
    optimizer.zero_grad()
    assert selector.step_count == 0
    train(model, optimizer, selector, steps=1)
    assert selector.step_count == 1


def test_only_the_guard_is_left_on_the_optimizer():
    model = lora_bert()
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=2))
    assert len(optimizer._optimizer_step_pre_hooks) > 0
    train(model, optimizer, selector, steps=2)
    assert len(optimizer._optimizer_step_pre_hooks) == 1


@pytest.mark.parametrize("make", [lora_bert, lora_zoo, lambda: lora_bert(lora_bias=True).to(torch.bfloat16)])
def test_parameters_of_one_shape_at_once_give_each_ones_credit_to_the_last_digit(make):
    """Against a loop over the adapters and their parameters, as stored runs were made."""
    model = make()
    adapters = find_adapters(model)
    optimizer = adamw(model)
    credit = UpdateCredit(adapters, optimizer, WeightLoraConfig(keep=1, select_steps=4))
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        for parameter in (p for adapter in adapters for p in adapter.parameters):
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter)
        adapters[step].parameters[1].grad = None
        before = [[p.detach().clone() for p in adapter.parameters] for adapter in adapters]
        optimizer.step()
        expected = []
        for adapter, olds in zip(adapters, before, strict=True):
            total = torch.zeros(())
            for parameter, old in zip(adapter.parameters, olds, strict=True):
                if parameter.grad is not None:
                    gradient, now, then = (t.detach().float().flatten() for t in (parameter.grad, parameter, old))
                    total -= torch.dot(gradient, now - then)
            expected.append(total.item())
        assert credit.take(1.0).tolist() == expected


def test_no_operation_of_a_step_is_made_once_an_adapter_but_the_dot_products():
    """So that on an accelerator the cost of a step does not grow with the number of adapters."""

    counted = []
    for layers in (1, 4):
        model = lora_bert(layers=layers)
        credit = UpdateCredit(find_adapters(model), adamw(model), WeightLoraConfig(keep=1, select_steps=4))
        model(**batch()).loss.backward()
        with Operations() as operations:
            credit._remember(None, (), {})
            credit.take(1.0)
        counted.append(operations.made - Counter(dict.fromkeys(("dot", "detach", "view"), 10**6)))
    assert counted[0] == counted[1] and counted[0].total() < 100


@pytest.mark.parametrize("variant", ["", "DoraLinear"])
def test_the_host_reads_an_accelerator_once_a_step_and_sends_it_nothing(variant):
    """On fake tensors: they have a device and no entries, so nothing but the one transfer may look at them."""

    def adapter(number):
        parameters = [nn.Parameter(torch.zeros(shape, device="cuda")) for shape in ((4, 16), (16, 4), (16,))]
        for parameter in parameters[number:]:
            parameter.grad = torch.zeros_like(parameter)
        magnitude = parameters[2]
        return SimpleNamespace(
            layer=nn.Module(),
            adapter_name="default",
            parameters=parameters,
            variant=variant,
            magnitude=magnitude,
            weight_norm=lambda: magnitude.detach() * 2,
        )

    with FakeTensorMode():
        adapters = [adapter(number) for number in range(3)]
        optimizer = torch.optim.SGD([p for one in adapters for p in one.parameters])
        credit = UpdateCredit(adapters, optimizer, WeightLoraConfig(keep=1, select_steps=4))
        for _ in range(2):
            with Operations() as operations:
                credit._remember(optimizer, (), {})
                assert credit.take(1.0).shape == (3,)
            assert operations.waited_for == [("cuda", "cpu")]
