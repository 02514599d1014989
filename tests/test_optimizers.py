"""Edits of a live optimizer: its groups stay, what survives does not notice, and what left is gone."""

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from models import adamw, lora_bert, train
from optimizers import OPTIMIZERS
from torch import nn
from torch.optim import lr_scheduler

from weightlora import WeightLora, WeightLoraConfig
from weightlora.errors import ConfigError
from weightlora.optimizers import check_holds, drop_parameters_, replace_parameter_, unwrap_optimizer


def make(kind: str, groups) -> torch.optim.Optimizer:
    pytest.importorskip(OPTIMIZERS[kind].needs)
    return OPTIMIZERS[kind].make(groups)


every_kind = pytest.mark.parametrize("kind", OPTIMIZERS)


def parameters(n: int = 6, shape: tuple[int, ...] = (2, 3)) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(n)]


def in_groups(p: list[nn.Parameter]) -> list[dict]:
    return [
        {"params": p[:3], "weight_decay": 0.01},
        {"params": p[3:4], "weight_decay": 0.02},
        {"params": p[4:], "weight_decay": 0.03, "lr": 0.05},
    ]


def take_steps(optimizer, p: list[nn.Parameter], steps: int = 1, start: int = 0) -> None:
    """Steps under gradients that depend only on the step and on the parameter's place."""
    for step in range(start, start + steps):
        for i, parameter in enumerate(p):
            generator = torch.Generator().manual_seed(1000 * step + i)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        optimizer.zero_grad()


@every_kind
def test_groups_stay_the_same_dicts_in_the_same_order(kind):
    p = parameters()
    optimizer = make(kind, in_groups(p))
    take_steps(optimizer, p, 2)
    groups = list(optimizer.param_groups)
    settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    new = nn.Parameter(torch.zeros(4, 3))

    drop_parameters_(optimizer, [p[1], p[3]])
    replace_parameter_(optimizer, p[4], new)

    assert len(optimizer.param_groups) == 3
    assert all(now is before for now, before in zip(optimizer.param_groups, groups, strict=True))
    assert [{key: value for key, value in group.items() if key != "params"} for group in groups] == settings
    expected = [[p[0], p[2]], [], [new, p[5]]]
    assert [[id(q) for q in group["params"]] for group in groups] == [[id(q) for q in group] for group in expected]


@every_kind
def test_what_is_dropped_leaves_state_and_gradient_behind(kind):
    p = parameters()
    optimizer = make(kind, in_groups(p))
    take_steps(optimizer, p, 2)
    for parameter in p:
        parameter.grad = torch.ones_like(parameter)
    values = [parameter.detach().clone() for parameter in p]
    states = {id(q): optimizer.state[q] for q in (p[0], p[2], p[4], p[5]) if q in optimizer.state}

    drop_parameters_(optimizer, [p[1], p[3]])

    assert {id(q): state for q, state in optimizer.state.items()} == states
    assert all(optimizer.state[q] is states[id(q)] for q in optimizer.state)
    assert [parameter.grad is None for parameter in p] == [False, True, False, True, False, False]
    optimizer.step()
    moved = [not torch.equal(parameter, value) for parameter, value in zip(p, values, strict=True)]
    assert moved == [True, False, True, False, True, True]


@every_kind
def test_survivors_take_the_steps_they_would_have_taken(kind):
    """Bit for bit, against an optimizer that nothing was taken out of."""
    edited, whole = parameters(), parameters()
    optimizers = [make(kind, in_groups(p)) for p in (edited, whole)]
    take_steps(optimizers[0], edited, 3)
    take_steps(optimizers[1], whole, 3)
    drop_parameters_(optimizers[0], [edited[i] for i in (0, 3, 5)])
    take_steps(optimizers[0], edited, 3, start=3)
    take_steps(optimizers[1], whole, 3, start=3)
    for i in (1, 2, 4):
        assert torch.equal(edited[i], whole[i])


@every_kind
def test_a_selection_runs_under_it_and_the_grown_survivors_train_on(kind):
    model = lora_bert()
    optimizer = make(kind, [p for p in model.parameters() if p.requires_grad])
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=2, select_steps=2, expand="random"))
    train(model, optimizer, selector, steps=2)
    survivors = [adapter.factors[1] for adapter in selector.adapters]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert len(selector.kept) == 2 and held == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(rank > 4 for rank in selector.ranks.values())
    before = [p.detach().clone() for p in survivors]
    train(model, optimizer, selector, steps=2, start=2)
    assert all(not torch.equal(p, old) for p, old in zip(survivors, before, strict=True))


def test_an_optimizer_may_lose_all_it_holds():
    p = parameters()
    optimizer = make("AdamW", in_groups(p))
    take_steps(optimizer, p)
    drop_parameters_(optimizer, p)
    assert [group["params"] for group in optimizer.param_groups] == [[], [], []]
    assert not optimizer.state
    optimizer.step()


def test_what_it_does_not_hold_changes_nothing():
    p, stranger = parameters(), nn.Parameter(torch.ones(2, 3))
    optimizer = make("AdamW", in_groups(p))
    take_steps(optimizer, p)
    before = copy.deepcopy(optimizer.state_dict())
    drop_parameters_(optimizer, [stranger])
    replace_parameter_(optimizer, stranger, nn.Parameter(torch.ones(4, 3)), lambda moment: moment)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert len(optimizer.state) == 6, "asking for the state of a stranger must not make one"


SCHEDULERS = {
    "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=8),
    "warm-up and decay by lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: min(step, 8 - step) / 4),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "one cycle, which moves beta too": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2, 0.3], total_steps=9),
    "two in sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.ExponentialLR(o, 0.8)], [3]
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_learning_rate_schedule_goes_on_in_every_group(scheduler):
    paths = []
    for edits in (False, True):
        p = parameters()
        optimizer = make("AdamW", in_groups(p))
        schedule = SCHEDULERS[scheduler](optimizer)
        path = []
        for step in range(8):
            take_steps(optimizer, p, start=step)
            schedule.step()
            path.append([(group["lr"], group["betas"]) for group in optimizer.param_groups])
            if edits and step == 3:
                drop_parameters_(optimizer, [p[0], p[3]])  # the second group is empty from here on
                replace_parameter_(optimizer, p[5], nn.Parameter(torch.zeros(4, 3)))
        paths.append(path)
    assert paths[0] == paths[1]
    assert len({group[0][0] for group in paths[0]}) > 4, "the schedule must move, or this shows nothing"


def pad(moment: torch.Tensor) -> torch.Tensor:
    """From two rows to five."""
    return torch.cat([moment, moment.new_zeros(3, *moment.shape[1:])])


MOMENTS = {name: kind.moments for name, kind in OPTIMIZERS.items() if kind.moments}


@pytest.mark.parametrize("kind", MOMENTS)
def test_carried_moments_keep_their_rows_and_the_new_rows_start_at_zero(kind):
    p = parameters()
    optimizer = make(kind, in_groups(p))
    take_steps(optimizer, p, 2)
    old = copy.deepcopy(dict(optimizer.state[p[1]]))
    new = nn.Parameter(pad(p[1].detach()))

    replace_parameter_(optimizer, p[1], new, pad)

    assert p[1] not in optimizer.state
    state = optimizer.state[new]
    assert state.keys() == old.keys()
    assert {key for key, value in state.items() if getattr(value, "shape", None) == new.shape} == MOMENTS[kind]
    for key, value in state.items():
        if key in MOMENTS[kind]:
            assert old[key].abs().min() > 0
            assert torch.equal(value[:2], old[key])
            assert torch.equal(value[2:], torch.zeros(3, 3))
        else:
            assert value == old[key]


@pytest.mark.parametrize("kind", MOMENTS)
def test_the_old_rows_go_on_as_if_nothing_were_added(kind):
    """Bit for bit; and the new rows move at the next step."""
    grown, whole = parameters(), parameters()
    optimizers = [make(kind, in_groups(p)) for p in (grown, whole)]
    for optimizer, p in zip(optimizers, (grown, whole), strict=True):
        take_steps(optimizer, p, 3)
    new = nn.Parameter(pad(grown[1].detach()))
    replace_parameter_(optimizers[0], grown[1], new, pad)
    for step in range(3):
        gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(step))
        new.grad, whole[1].grad = torch.cat([gradient, torch.ones(3, 3)]), gradient
        for optimizer in optimizers:
            optimizer.step()
        assert torch.equal(new[:2], whole[1])
        assert new[2:].abs().min() > 0


class Quantized(torch.Tensor):
    """As torchao's: it has the shape and the dtype of what it stands for, and can hardly be calculated with."""


def foreign_state(name: str, parameter: nn.Parameter) -> dict:
    return {
        "moments of another type": {"step": 3, "exp_avg": torch.ones_like(parameter).as_subclass(Quantized)},
        "quantized moments": {"step": 3, "state1": torch.ones(parameter.shape, dtype=torch.uint8)},
        "moments in blocks": {"step": 3, "exp_avg": torch.ones_like(parameter), "absmax": torch.ones(2)},
        "a list of factors": {"step": torch.tensor(3.0), "row": torch.ones(2), "col": torch.ones(3)},
        "a copy of the weights": {"step": 3, "z": torch.ones_like(parameter)},  # as of schedule-free optimizers
    }[name]


@pytest.mark.parametrize(
    "state",
    [
        "moments of another type",
        "quantized moments",
        "moments in blocks",
        "a list of factors",
        "a copy of the weights",
    ],
)
def test_state_of_another_form_is_not_carried(state):
    p = parameters()
    optimizer = make("SGD", in_groups(p))
    optimizer.state[p[1]] = foreign_state(state, p[1])
    new = nn.Parameter(torch.zeros(5, 3))
    replace_parameter_(optimizer, p[1], new, pad)
    assert not optimizer.state


def test_step_sizes_start_afresh_or_new_rows_would_stay_where_they_are():
    p = parameters()
    optimizer = torch.optim.Rprop(in_groups(p), lr=0.1)
    take_steps(optimizer, p, 2)
    new = nn.Parameter(torch.ones(5, 3))
    replace_parameter_(optimizer, p[1], new, pad)
    take_steps(optimizer, [new])
    assert torch.allclose((new - 1).abs(), torch.tensor(0.1))


@every_kind
def test_without_carry_the_new_one_starts_afresh_and_moves(kind):
    p = parameters()
    optimizer = make(kind, in_groups(p))
    take_steps(optimizer, p, 2)
    new = nn.Parameter(torch.ones(5, 3))
    replace_parameter_(optimizer, p[1], new)
    assert new not in optimizer.state or kind == "Adagrad"
    assert p[1] not in optimizer.state

    alone = nn.Parameter(torch.ones(5, 3))
    fresh = make(kind, [{"params": [alone], "weight_decay": 0.01}])
    take_steps(optimizer, [new])
    take_steps(fresh, [alone])
    assert torch.equal(new, alone)
    assert (new != 1).all()


@pytest.mark.parametrize("kind", ["Adafactor of torch", "Adafactor of Transformers"])
@pytest.mark.parametrize("shape", [(2, 3), (1, 3)], ids=["rank 2", "rank 1"])
def test_factored_moments_start_afresh(shape, kind):
    p = parameters(shape=shape)
    optimizer = make(kind, in_groups(p))
    take_steps(optimizer, p, 2)
    new = nn.Parameter(torch.ones(shape[0] + 3, 3))
    replace_parameter_(optimizer, p[1], new, pad)
    take_steps(optimizer, [new])
    assert (new != 1).all()
    assert optimizer.state[new]["step"] == 1


@every_kind
def test_an_edited_optimizer_saves_and_loads(kind):
    """Into a fresh optimizer that was edited in the same way; both then take the same steps, bit for bit."""
    p, q = parameters(), parameters()
    optimizer, fresh = (make(kind, in_groups(x)) for x in (p, q))
    take_steps(optimizer, p, 2)
    for holder, x in ((optimizer, p), (fresh, q)):
        drop_parameters_(holder, [x[0], x[3]])
        grown = nn.Parameter(pad(x[4].detach()))
        replace_parameter_(holder, x[4], grown, pad)
        x[4] = grown
    take_steps(optimizer, p, 1, start=2)

    saved = copy.deepcopy(optimizer.state_dict())
    assert [group["params"] for group in saved["param_groups"]] == [[0, 1], [], [2, 3]]
    fresh.load_state_dict(saved)
    for mine, theirs in zip(q, p, strict=True):
        mine.data.copy_(theirs)
    take_steps(optimizer, p, 2, start=3)
    take_steps(fresh, q, 2, start=3)
    for i in (1, 2, 4, 5):
        assert torch.equal(p[i], q[i])


def test_accelerates_wrapper_is_taken_off_and_sees_the_edits():
    p = parameters()
    inner = make("AdamW", in_groups(p))
    wrapper = Accelerator(cpu=True).prepare(inner)
    assert wrapper is not inner
    assert unwrap_optimizer(wrapper) is inner
    assert unwrap_optimizer(inner) is inner

    take_steps(wrapper, p)
    drop_parameters_(unwrap_optimizer(wrapper), [p[0], p[3]])
    assert [len(group["params"]) for group in wrapper.param_groups] == [2, 0, 2]
    value = p[1].detach().clone()
    take_steps(wrapper, p, start=1)
    assert not torch.equal(p[1], value)


def test_a_parameter_that_the_optimizer_lacks_is_named():
    p = parameters()
    optimizer = make("AdamW", in_groups(p))
    named = [("first", p[0]), ("second", nn.Parameter(torch.ones(1))), ("third", nn.Parameter(torch.ones(1)))]
    check_holds(optimizer, named[:1])
    with pytest.raises(
        ValueError, match=r"^the optimizer does not hold the parameters of 2 adapters, 'second' the first: build it"
    ):
        check_holds(optimizer, named)


def test_parameters_that_hooks_step_in_the_backward_pass_are_named():
    """Transformers gives the callbacks of a layerwise optimizer a dummy, which holds nothing."""
    held, stepped = parameters(2)
    stepped.register_post_accumulate_grad_hook(lambda parameter: None)
    with pytest.raises(
        ValueError, match=r"^the parameters of 'second' have hooks that step them in the backward pass"
    ):
        check_holds(torch.optim.SGD([held], lr=0.1), [("first", held), ("second", stepped)])


def test_an_optimizer_that_parameters_cannot_leave_is_refused():
    model = lora_bert()
    optimizer = torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad])
    for one in (optimizer, Accelerator(cpu=True).prepare(optimizer)):
        with pytest.raises(ConfigError, match=r"^LBFGS keeps all parameters in one vector, .*: train with AdamW, or"):
            WeightLora(model, one, WeightLoraConfig(keep=2, select_steps=4))


def test_a_wrapper_that_calls_no_hooks_is_refused_and_what_it_wraps_is_served():
    """As ScheduleFreeWrapper of schedulefree."""
    model = lora_bert()
    inner = adamw(model)
    wrapper = SimpleNamespace(base=inner, param_groups=inner.param_groups, step=inner.step)
    with pytest.raises(ConfigError, match=r"^the optimizer is a SimpleNamespace, which calls no hooks .*: give"):
        WeightLora(model, wrapper, WeightLoraConfig(keep=2, select_steps=4))
    WeightLora(model, wrapper.base, WeightLoraConfig(keep=2, select_steps=4))


def test_an_optimizer_with_parameters_elsewhere_is_refused():
    """As ZeroRedundancyOptimizer, which needs a process group."""
    model = lora_bert()
    optimizer = adamw(model)
    optimizer.consolidate_state_dict = lambda: None
    with pytest.raises(
        ConfigError, match=r"^ZeroRedundancyOptimizer keeps its own lists of parameters, .*: train with"
    ):
        WeightLora(model, optimizer, WeightLoraConfig(keep=2))


def test_an_optimizer_that_maximizes_is_refused_where_the_fall_of_the_loss_decides():
    """Credit would have chosen the adapters that helped least."""
    model = lora_bert()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], maximize=True)
    for selection in ("credit", "stoiht"):
        with pytest.raises(
            ConfigError, match=r"^maximize=True of the optimizer .*: minimize the negative of what you"
        ):
            WeightLora(model, optimizer, WeightLoraConfig(keep=2, select_steps=4, selection=selection))
    WeightLora(model, optimizer, WeightLoraConfig(keep=2))


def test_what_a_group_lists_beside_its_parameters_is_shortened_with_them():
    p = parameters(2)
    named = [("x.lora_A", p[0]), ("y.lora_A", p[1])]
    optimizer = torch.optim.AdamW(named, lr=0.1)
    optimizer.param_groups[0]["betas"] = [0.9, 0.99]  # as JSON has it
    optimizer.param_groups[0]["scaling_factors"] = [2.0, 3.0]
    optimizer.state["x.lora"] = {"step": 1}
    optimizer.state["y.lora"] = {"step": 2}
    drop_parameters_(optimizer, [p[0]])
    group = optimizer.param_groups[0]
    assert group["params"] == [p[1]] and group["param_names"] == ["y.lora_A"] and group["scaling_factors"] == [3.0]
    assert group["betas"] == [0.9, 0.99], "two entries, but not one a parameter"
    assert dict(optimizer.state) == {"y.lora": {"step": 2}}

    new = nn.Parameter(torch.zeros(4, 3))
    replace_parameter_(optimizer, p[1], new)
    assert group["params"] == [new] and group["param_names"] == ["y.lora_A"]
    assert not optimizer.state, "moments by name are of the old shape"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(torch.optim.Rprop, {"etas": [0.5, 1.2]}), (torch.optim.Rprop, {"step_sizes": [1e-6, 50]})],
)
def test_a_setting_that_is_a_list_is_not_shortened(kind, settings):
    """As a config in YAML or JSON gives it, beside a group of as many parameters."""
    p = parameters(4)
    optimizer = kind([{"params": p[:2]}, {"params": p[2:]}], **settings)
    take_steps(optimizer, p)
    drop_parameters_(optimizer, [p[0], p[2], p[3]])
    replace_parameter_(optimizer, p[1], nn.Parameter(torch.zeros(2, 3)))
    assert all(group.items() >= settings.items() for group in optimizer.param_groups)


def test_a_wrapper_need_not_have_defaults():
    p = parameters(3)
    inner = adamw(nn.ParameterList(p))
    wrapper = SimpleNamespace(param_groups=inner.param_groups, state=inner.state)
    drop_parameters_(wrapper, p[:1])
    replace_parameter_(wrapper, p[1], nn.Parameter(torch.zeros(2, 3)))
    assert len(inner.param_groups[0]["params"]) == 2


def test_state_by_name_stays_as_long_as_one_of_its_parameters():
    """Two adapters on one module, under PEFT's LoRA-FA."""
    p = parameters(2)
    optimizer = torch.optim.AdamW([("x.lora_A.one", p[0]), ("x.lora_A.other", p[1])], lr=0.1)
    optimizer.state["x.lora"] = {"step": 1}
    drop_parameters_(optimizer, [p[0]])
    assert dict(optimizer.state) == {"x.lora": {"step": 1}}
    drop_parameters_(optimizer, [p[1]])
    assert not optimizer.state
