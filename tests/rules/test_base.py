"""What every rule of the registry must do: the tests iterate over it, so a new rule is tested as it is added."""

import gc
import warnings
import weakref

import pytest
import torch
from models import adamw, batch, lora_bert, train

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.budget import top_k
from weightlora.errors import ConfigError, TrainingError
from weightlora.rules import RULES, Rule, check_finite
from weightlora.rules.base import rank_last

STEPS = {"select_steps": 4}


def settings_for(name):
    return {"selection": name, "keep": 3, **({} if RULES[name].probes else STEPS)}


@pytest.fixture(params=RULES)
def name(request):
    return request.param


def test_each_rule_is_complete(name):
    rule = RULES[name]
    assert issubclass(rule, Rule) and rule.name == name and rule.score_label and rule.__doc__
    assert WeightLoraConfig(**settings_for(name)).selection == name


@pytest.mark.parametrize(
    ("name", "least_steps", "probes", "has_gates", "shares_parameters"),
    [
        ("credit", 1, False, False, True),
        ("gradient", 0, True, False, False),
        ("stoiht", 2, False, True, False),
        ("random", 0, False, False, False),
    ],
)
def test_what_the_rules_say_of_themselves(name, least_steps, probes, has_gates, shares_parameters):
    rule = RULES[name]
    assert (rule.least_steps, rule.probes) == (least_steps, probes)
    assert (rule.has_gates, rule.shares_parameters) == (has_gates, shares_parameters)


@pytest.mark.parametrize("given_up", ["credit", "stoiht"])
def test_each_rule_removes_what_a_selection_that_was_given_up_left(name, given_up):
    """Its gates would act on, and would not be saved; its copies for credit would keep dropped layers in memory."""
    model = lora_bert()
    optimizer = adamw(model)
    hooks = len(optimizer._optimizer_step_pre_hooks)
    train(model, optimizer, WeightLora(model, optimizer, WeightLoraConfig(**settings_for(given_up))), steps=3)
    if RULES[name].probes:  # which takes fresh adapters alone
        torch._foreach_zero_([adapter.factors[1].data for adapter in find_adapters(model)])
    selector = WeightLora(model, optimizer, WeightLoraConfig(**settings_for(name)))
    assert any(module._forward_hooks for module in model.modules()) == RULES[name].has_gates
    layers = [weakref.ref(adapter.layer) for adapter in selector.adapters]
    if RULES[name].probes:
        selector.probe([batch(0)])
    train(model, optimizer, selector, steps=5)
    gc.collect()
    assert len(optimizer._optimizer_step_pre_hooks) == hooks + 1, "the guard stays"
    assert not any(module._forward_hooks for module in model.modules())
    assert sum(layer() is not None for layer in layers) == 3


def test_each_rule_keeps_exactly_k_and_leaves_nothing(name):
    model = lora_bert()
    optimizer = adamw(model)
    hooks = len(optimizer._optimizer_step_pre_hooks)
    selector = WeightLora(model, optimizer, WeightLoraConfig(**settings_for(name)))
    if RULES[name].probes:
        selector.probe([batch(0)])
    train(model, optimizer, selector, steps=5)
    assert selector.phase == "train" and len(selector.kept) == 3
    assert [adapter.name for adapter in find_adapters(model)] == selector.kept
    assert len(optimizer._optimizer_step_pre_hooks) == hooks + 1, "the guard stays"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_each_rule_needs_the_steps_that_it_says(name):
    if RULES[name].probes:
        pytest.skip("it needs no steps")
    least = RULES[name].least_steps
    if least:
        with pytest.raises(ConfigError, match=f"select_steps={least - 1} must be a whole number of at least {least}"):
            WeightLoraConfig(selection=name, keep=3, select_steps=least - 1)
    model = lora_bert()
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(selection=name, keep=3, select_steps=least))
    train(model, optimizer, selector, steps=least)
    assert len(selector.kept) == 3


def test_settings_of_gates_are_refused_where_there_are_none(name):
    settings = settings_for(name) | {"rank_by": "magnitude"}
    if RULES[name].has_gates:
        WeightLoraConfig(**settings)
    else:
        with pytest.raises(ConfigError, match="rank_by='magnitude' is a setting of gates"):
            WeightLoraConfig(**settings)


def test_the_share_of_the_parameters_is_bounded_where_the_rule_says_so(name):
    """12 adapters of two sizes, K = 3: a quarter of the parameters, or no bound."""
    config = WeightLoraConfig(**settings_for(name))
    sizes = [100] * 6 + [200] * 6
    ((number, most),) = config.budget_for(sizes).rounds
    assert number == 3
    assert most == (450 if RULES[name].shares_parameters else 1800)


def test_few_steps_warn_where_there_is_evidence(name):
    model = lora_bert()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WeightLora(model, adamw(model), WeightLoraConfig(**settings_for(name)))
    few = [str(w.message) for w in caught if "select for 30 steps or more" in str(w.message)]
    assert len(few) == bool(RULES[name].least_steps)
    assert all("chosen after only 4 steps" in text for text in few)


def test_a_rule_of_somebody_else_is_one_entry(monkeypatch):
    """Neither the config nor the selector knows the rules by name."""

    class Last(Rule):
        """Prefers what is near the output."""

        name, score_label = "last", "depth"

        def __init__(self, adapters, optimizer, settings):
            super().__init__(adapters, optimizer, settings)
            self.score = torch.arange(len(adapters), dtype=torch.float64)

    monkeypatch.setitem(RULES, "last", Last)
    model = lora_bert()
    selector = WeightLora(model, adamw(model), WeightLoraConfig(selection="last", keep=2, select_steps=0))
    assert selector.kept == selector.names[-2:]
    model(**batch()).loss.backward()


@pytest.mark.parametrize("large", [1.0, 0.0, 1e-30, 1e30, -1e30])
def test_rank_last_puts_some_after_all_others_and_leaves_the_others_alone(large):
    score = torch.tensor([0.0, large, 1.0, large * 2, 0.0, -abs(large)], dtype=torch.float64)
    last = torch.tensor([True, False, True, False, True, False])
    ranked = rank_last(score, last)
    assert torch.equal(ranked[~last], score[~last])
    assert ranked[last].max() < ranked[~last].min()
    assert ranked[2] > ranked[0] == ranked[4]
    for all_or_none in (True, False):
        assert torch.equal(rank_last(score, torch.full((6,), all_or_none)), score)


class Given(Rule):
    """Has no evidence on the first adapter."""

    name, score_label, least_steps = "given", "score", 1

    def unseen(self):
        return torch.arange(len(self.score)) == 0


def test_a_rule_holds_a_score_and_an_open_gate_for_each_adapter():
    rule = Rule(find_adapters(lora_bert()), None, None)
    assert torch.equal(rule.score, torch.zeros(12, dtype=torch.float64))
    assert torch.equal(rule.omega, torch.ones(12, dtype=torch.float64))
    assert torch.equal(rule.take(1.0), rule.score)
    rule.restore(torch.arange(12.0), torch.arange(12.0) / 12)
    assert rule.unseen().tolist() == [index == 0 for index in range(12)], "no evidence is a score of 0"
    rule.keep(torch.arange(12) % 4 == 1)
    assert rule.score.tolist() == [1, 5, 9] and rule.omega.tolist() == pytest.approx([1 / 12, 5 / 12, 9 / 12])


def test_what_is_not_seen_comes_last_and_warns_where_it_stays_all_the_same():
    rule = Given(find_adapters(lora_bert())[:3], None, None)
    rule.score = torch.tensor([0.5, -3.0, -2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rule.decide(lambda score: top_k(score, 2)).tolist() == [False, True, True]
    with pytest.warns(UserWarning, match="1 of the 3 adapters that stay got no gradient"):
        assert rule.decide(lambda score: top_k(score, 3)).all()


def test_30_steps_are_enough():
    rule = Given([], None, None)
    with pytest.warns(UserWarning, match="chosen after only 29 steps: select for 30 steps or more"):
        rule.warn_of_few_steps(29)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.warn_of_few_steps(30)
        Rule([], None, None).warn_of_few_steps(1)


def test_equal_scores_are_nothing_to_choose_by():
    rule = Given(find_adapters(lora_bert())[:3], None, None)
    with pytest.raises(TrainingError, match=r"score the same after 4 steps, .* train for more steps before"):
        rule.check_differs(4)
    rule.score = torch.tensor([0.0, 0.0, 1.0])
    rule.check_differs(4)


def test_the_first_adapter_with_evidence_that_is_not_finite_is_named():
    adapters = find_adapters(lora_bert())[:4]
    check_finite(torch.tensor([0.0, 1.0, -1e30, 2.0]), adapters, "step 3")
    message = "evidence on adapter 'bert.encoder.layer.0.attention.self.key' is inf in step 3"
    with pytest.raises(TrainingError, match=message):
        check_finite(torch.tensor([0.0, torch.inf, 1.0, torch.nan]), adapters, "step 3")


@pytest.mark.parametrize("name", ["credit", "stoiht"])
def test_an_adapter_that_never_ran_is_never_kept_while_there_are_others(name):
    """Noise as labels: credit goes negative and gates fall below 1, while those that do not run stay at 0 and 1."""
    model = lora_bert(task_type=None)
    adapters = find_adapters(model)
    idle = {adapter.name for adapter in adapters[::2]}
    for adapter in adapters[::2]:
        adapter.layer.forward = adapter.layer.base_layer.forward
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    config = WeightLoraConfig(
        selection=name, keep=5, select_steps=6, **({"warmup_steps": 2} if name == "stoiht" else {})
    )
    selector = WeightLora(model, optimizer, config)
    optimizer.param_groups[0]["maximize"] = True  # refused if it is there at the start
    train(model, optimizer, selector, steps=6)
    assert len(selector.kept) == 5 and not idle & set(selector.kept)


def test_a_rule_compares_blocks_unless_it_says_otherwise():
    assert Rule(find_adapters(lora_bert()), None, None).compares_blocks
