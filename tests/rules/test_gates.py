"""The rule of the gates: steps, projections and decisions, on gates that are moved by hand."""

import pytest
import torch
from models import adamw, lora_bert, train
from torch import nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.budget import top_k
from weightlora.errors import ModelError, TrainingError
from weightlora.rules.gates import StoIHT


def gates_rule(n: int = 12, **settings) -> StoIHT:
    """Gates on a model, to be moved by hand."""
    model = lora_bert(layers=n // 6)
    config = WeightLoraConfig(selection="stoiht", **({"select_steps": 4} | settings))
    return StoIHT(find_adapters(model), adamw(model), config)


def best_of(k: int):
    return lambda score: top_k(score, k)


def moved_to(rule: StoIHT, values: list[float], k: int) -> torch.Tensor:
    """One step that brings the gates to such values, and the decision after it."""
    values = torch.tensor(values, dtype=torch.float64)
    rule.update((rule.score - values) / rule._settings.omega_lr, 1, best_of(k))
    return rule.decide(best_of(k))


@pytest.mark.parametrize("keep", [2, 3])
def test_a_gate_of_0_never_beats_a_negative_one(keep):
    """The projection of a step and the decision after it choose the same adapters, and all of them are on."""
    rule = gates_rule(omega_lr=1000.0, keep=keep)
    kept = moved_to(rule, [3.0, -5.0, -7.0, *[-9.0] * 9], keep)
    assert kept.nonzero().flatten().tolist() == list(range(keep))
    assert rule.omega[:keep].tolist() == [3.0, -5.0, -7.0][:keep] and not rule.omega[keep:].any()


def test_a_huge_step_size_leaves_k_adapters_that_are_on():
    model = lora_bert()
    optimizer = adamw(model)
    config = WeightLoraConfig(selection="stoiht", keep=2, select_steps=5, omega_lr=1000.0)
    selector = WeightLora(model, optimizer, config)
    train(model, optimizer, selector, steps=5)
    assert selector.kept == [adapter.name for adapter in find_adapters(model)] and len(selector.kept) == 2
    assert all(adapter.scaling != 0 for adapter in find_adapters(model))


@pytest.mark.parametrize("rank_by", ["value", "magnitude"])
def test_gates_beyond_float32_are_an_error_that_names_the_step_size(rank_by):
    rule = gates_rule(omega_lr=1e20, keep=2, rank_by=rank_by)
    before = rule.score.clone()
    with pytest.raises(TrainingError, match=r"a gate would become infinite under omega_lr=1e\+20: lower it"):
        rule.update(torch.full((12,), 1e19, dtype=torch.float64), 1, best_of(2))
    assert torch.equal(rule.score, before), "nothing was changed"


@pytest.mark.parametrize("rank_by", ["value", "magnitude"])
@pytest.mark.parametrize("constraint", ["l0", "simplex"])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_gates_without_a_gradient_lose_to_those_that_have_one(rank_by, constraint, every):
    """Gates that fall below 1 are evidence; those of adapters that never ran stay at 1, which is more."""
    rule = gates_rule(
        keep=4, omega_lr=0.1, select_steps=6, rank_by=rank_by, constraint=constraint, threshold_every=every
    )
    generator = torch.Generator().manual_seed(0)
    ran = torch.arange(12) % 2 == 1
    for step in range(1, 7):
        evidence = torch.rand(12, dtype=torch.float64, generator=generator) * ran
        rule.update(evidence, step, best_of(4))
    keep = rule.decide(best_of(4))
    assert bool(ran[keep].all())
    assert int(keep.sum()) == 4 if constraint == "l0" else int(keep.sum()) > 0


def test_where_too_few_have_evidence_the_rest_of_the_budget_goes_by_order_and_warns():
    rule = gates_rule(keep=3)
    rule.update(torch.tensor([0.0] * 10 + [1e-3, 2e-3], dtype=torch.float64), 1, best_of(3))
    with pytest.warns(UserWarning, match="1 of the 3 adapters that stay got no gradient"):
        keep = rule.decide(best_of(3))
    assert keep.nonzero().flatten().tolist() == [0, 10, 11] and rule.omega[0] == 1


def test_fewer_gates_that_are_on_than_adapters_to_keep_is_an_error():
    rule = gates_rule(keep=2)
    with pytest.raises(TrainingError, match=r"only 1 of the 2 adapters .* omega_lr=5.0: lower it, or select for more"):
        moved_to(rule, [2.0, *[0.0] * 11], 2)


def test_a_budget_of_parameters_alone_is_not_filled_with_gates_that_are_off(recwarn):
    rule = gates_rule(keep_parameters=0.5)
    kept = moved_to(rule, [2.0, *[0.0] * 11], 2)
    assert kept.nonzero().flatten().tolist() == [0]
    assert not [one for one in recwarn if "got no gradient" in str(one.message)]


def rule_and_optimizer(**settings) -> tuple[StoIHT, torch.optim.Optimizer]:
    model = lora_bert()
    optimizer = adamw(model, lr=0.5)
    config = WeightLoraConfig(selection="stoiht", **({"select_steps": 9, "omega_lr": 0.1} | settings))
    return StoIHT(find_adapters(model), optimizer, config), optimizer


def all_of(score: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(score), dtype=torch.bool)


def test_a_schedule_that_notes_no_first_rate_is_followed_too_also_after_a_restart():
    rule, optimizer = rule_and_optimizer(omega_follows_lr=True)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    assert rule._part_of_lr() == 1.0
    schedule.step(1.0)
    schedule.step(1.0)
    assert rule._part_of_lr() == pytest.approx(0.1)

    resumed, again = rule_and_optimizer(omega_follows_lr=True)
    again.load_state_dict(optimizer.state_dict())
    assert resumed._part_of_lr() == pytest.approx(0.1)
    again.param_groups[0]["lr"] = 0.0
    assert resumed._part_of_lr() == 0.0


def test_a_schedule_that_is_made_later_begins_at_the_rate_of_then():
    rule, optimizer = rule_and_optimizer(omega_follows_lr=True)
    assert rule._part_of_lr() == 1.0
    optimizer.param_groups[0]["lr"] = 2.0
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["initial_lr"] == 2.0


def test_the_gradients_lose_the_scale_of_the_loss():
    rule, _ = rule_and_optimizer()
    for number, gate in enumerate(rule.gates[1:]):
        gate.omega.grad = torch.tensor(float(number))
    assert rule.take(4.0).tolist() == [0.0, *[number / 4 for number in range(11)]]
    with pytest.raises(TrainingError, match=r"no gate got a gradient: call step\(\) after backward\(\)"):
        rule.take(4.0)


@pytest.mark.parametrize(("follows", "initial", "share"), [(True, 2.0, 0.25), (True, None, 1.0), (False, 2.0, 1.0)])
def test_the_step_size_follows_the_learning_rate_where_a_scheduler_has_set_it(follows, initial, share):
    rule, optimizer = rule_and_optimizer(omega_follows_lr=follows)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 9.0, "initial_lr": 9.0})
    if initial:
        optimizer.param_groups[0]["initial_lr"] = initial
    rule.update(torch.arange(12.0, dtype=torch.float64), 1, all_of)
    assert rule.score.tolist() == pytest.approx([1 - 0.1 * share * number for number in range(12)], abs=1e-12)


def test_the_step_size_is_never_above_its_own_under_one_cycle():
    """OneCycleLR calls a 25th of its highest rate the initial one."""
    rule, optimizer = rule_and_optimizer(omega_follows_lr=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3.0, total_steps=10)
    shares = []
    for _ in range(9):
        before = rule.score.clone()
        rule.update(torch.ones(12, dtype=torch.float64), 1, all_of)
        shares.append(float(before[0] - rule.score[0]) / 0.1)
        optimizer.step()
        schedule.step()
    assert shares[0] == pytest.approx(1 / 25) and max(shares) == pytest.approx(1, abs=0.05)


def test_the_schedule_is_that_of_the_adapters_and_raises_nothing():
    rule, optimizer = rule_and_optimizer(omega_follows_lr=True)
    head = {"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0, "initial_lr": 4.0}
    optimizer.param_groups.insert(0, head)  # a schedule of its own
    ours = optimizer.param_groups[1]
    ours["initial_lr"] = 2 * ours["lr"]
    rule.update(torch.ones(12, dtype=torch.float64), 1, all_of)
    assert rule.score.tolist() == pytest.approx([1 - 0.1 / 2] * 12)
    ours["initial_lr"] = ours["lr"] / 100  # as CyclicLR has it
    rule.update(torch.ones(12, dtype=torch.float64), 2, all_of)
    assert rule.score.tolist() == pytest.approx([1 - 0.1 / 2 - 0.1] * 12)


def test_gates_act_after_the_warm_up_and_not_before():
    rule, _ = rule_and_optimizer(warmup_steps=2)
    evidence = torch.arange(12.0, dtype=torch.float64)
    for step in (1, 2):
        rule.update(evidence, step, all_of)
        assert torch.equal(rule.omega, torch.ones(12, dtype=torch.float64))
        assert [float(gate.omega) for gate in rule.gates] == [1.0] * 12
    rule.update(evidence, 3, all_of)
    assert torch.equal(rule.omega, rule.score) and rule.omega is not rule.score
    assert [float(gate.omega) for gate in rule.gates] == pytest.approx([1 - 0.3 * number for number in range(12)])


def test_gates_are_projected_every_so_many_steps_unless_none_has_moved():
    rule, _ = rule_and_optimizer(threshold_every=2)
    evidence = torch.arange(12.0, dtype=torch.float64) * 0.9
    rule.update(evidence, 1, best_of(3))
    assert (rule.score != 0).all()
    rule.update(evidence, 2, best_of(3))
    assert (rule.score != 0).nonzero().flatten().tolist() == [1, 2, 3], "0 has not moved, the others fell further"
    before = rule.score.clone()
    rule.update(torch.zeros(12, dtype=torch.float64), 4, best_of(1))
    assert torch.equal(rule.score, before), "while all gradients are 0, there is nothing to rank"


def test_gates_are_ranked_by_value_or_by_magnitude():
    for rank_by, kept in (("value", [0, 1]), ("magnitude", [0, 2])):
        rule = gates_rule(keep=2, omega_lr=1.0, rank_by=rank_by)
        keep = moved_to(rule, [3.0, 0.5, -2.0, *[-0.1] * 9], 2)
        assert keep.nonzero().flatten().tolist() == kept
        assert [rule.omega[place] for place in kept] == [rule.score[place] for place in kept]


def test_on_the_simplex_the_gates_add_up_to_1_and_those_at_0_leave():
    rule = gates_rule(keep=3, omega_lr=1.0, constraint="simplex")
    rule.update(torch.tensor([-0.5, 0.0, 0.5, 0.6, *[5.0] * 8], dtype=torch.float64), 1, best_of(3))
    assert rule.score.sum() == pytest.approx(1) and rule.score[1] == 0, "a gate that has not moved"
    assert rule.score[:4].tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0])
    keep = rule.decide(best_of(3))
    assert torch.equal(keep, rule.score != 0) and rule.omega is rule.score


@pytest.mark.parametrize("gates", [[1.5, 0.2], [0.6, 0.4]])
def test_gates_that_the_simplex_brings_to_0_or_1_are_no_gates_without_a_gradient(gates, recwarn):
    rule = gates_rule(keep=3, omega_lr=1.0, constraint="simplex")
    keep = moved_to(rule, [*gates, *[-0.5] * 10], 3)
    assert keep.nonzero().flatten().tolist() == list(range(2 if sum(gates) == 1 else 1))
    assert not [one for one in recwarn if "got no gradient" in str(one.message)]


def test_those_that_stay_keep_their_gates_and_nothing_is_left_of_the_others():
    model = lora_bert()
    rule = StoIHT(find_adapters(model), adamw(model), WeightLoraConfig(selection="stoiht", keep=3, select_steps=4))
    gates = list(rule.gates)
    handles = [handle for gate in gates for handle in gate.handles]
    mask = torch.arange(12) % 4 == 1
    rule.restore(torch.arange(12.0, dtype=torch.float64), torch.arange(12.0, dtype=torch.float64) / 12)
    assert [float(gate.omega) for gate in gates] == pytest.approx([number / 12 for number in range(12)])
    rule.keep(mask)
    assert rule.gates == [gates[1], gates[5], gates[9]] and rule.score.tolist() == [1, 5, 9]
    alive = [handle.id in handle.hooks_dict_ref() for handle in handles]
    assert alive == mask.tolist()
    rule.close()
    assert not any(handle.id in handle.hooks_dict_ref() for handle in handles)


def test_what_a_gate_cannot_switch_off_is_refused():
    with pytest.raises(ModelError, match=r"kind that a gate cannot switch off \(DoraLinear\): set selection='credit'"):
        StoIHT(find_adapters(lora_bert(use_dora=True)), None, WeightLoraConfig(selection="stoiht", select_steps=4))
