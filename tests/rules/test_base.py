"""What every rule of the registry must do: the tests iterate over it, so a new rule is tested as it is added."""

import warnings

import pytest
import torch
from models import adamw, batch, lora_bert, train

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError
from weightlora.rules import RULES, Rule
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
    thin = [str(w.message) for w in caught if "which is thin: select for 30 steps or more" in str(w.message)]
    assert len(thin) == bool(RULES[name].least_steps)
    assert all("the evidence of 4 steps" in text for text in thin)


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


@pytest.mark.parametrize("large", [1.0, 1e-30, 1e30, -1e30])
def test_rank_last_puts_some_after_all_others_and_leaves_the_others_alone(large):
    score = torch.tensor([0.0, large, 1.0, large * 2, 0.0, -abs(large)], dtype=torch.float64)
    last = torch.tensor([True, False, True, False, True, False])
    ranked = rank_last(score, last)
    assert torch.equal(ranked[~last], score[~last])
    assert ranked[last].max() < ranked[~last].min()
    assert ranked[2] > ranked[0] == ranked[4]
    assert torch.equal(rank_last(score, torch.zeros(6, dtype=torch.bool)), score)


@pytest.mark.parametrize("name", ["credit", "stoiht"])
def test_an_adapter_that_never_ran_is_never_kept_while_there_are_others(name):
    """Noise as labels: credit goes negative and gates fall below 1, while those that do not run stay at 0 and 1."""
    model = lora_bert(task_type=None)
    adapters = find_adapters(model)
    idle = {adapter.name for adapter in adapters[::2]}
    for adapter in adapters[::2]:
        adapter.layer.forward = adapter.layer.base_layer.forward
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0, maximize=True)
    config = WeightLoraConfig(
        selection=name, keep=5, select_steps=6, **({"warmup_steps": 2} if name == "stoiht" else {})
    )
    selector = WeightLora(model, optimizer, config)
    train(model, optimizer, selector, steps=6)
    assert len(selector.kept) == 5 and not idle & set(selector.kept)
