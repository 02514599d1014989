"""Ranks in proportion to scores are the largest that fit, and what cannot have them is one sentence."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from models import batch, lora_bert, tiny_bert

from weightlora import WeightLoraConfig, select
from weightlora.budget import Budget
from weightlora.errors import ConfigError
from weightlora.selection.proportional import check_ranks, ranks_in_proportion, ranks_within

BATCHES = [batch(step) for step in range(4)]


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=8).filter(lambda scores: max(scores) > 0.1),
    st.integers(20, 10_000),
)
@example(scores=[3.0, 1.0, 10.0, 0.5, 0.0, 0.0, 0.625], most=124)  # rounding leaves room for a whole rank
def test_ranks_are_the_largest_that_fit(scores, most):
    score = torch.tensor(scores, dtype=torch.float64)
    sizes = torch.tensor([3.0, 5.0, 3.0, 8.0, 5.0, 3.0, 13.0, 2.0][: len(scores)], dtype=torch.float64)
    ranks = torch.tensor(ranks_within(score, sizes, most), dtype=torch.float64)
    assert (ranks * sizes).sum() <= most and bool((ranks[score == 0] == 0).all())
    order = score.argsort()
    assert bool((ranks[order].diff() >= 0).all())
    grown = min((rank + 0.5) / one for rank, one in zip(ranks.tolist(), scores, strict=True) if one)
    assert ((score * grown * (1 + 1e-9)).round() * sizes).sum() > most  # the next rank that grows does not fit


def test_a_budget_below_the_best_module_at_rank_1_is_refused():
    assert ranks_in_proportion([3.0, 0.1], [1, 1], [40, 10], Budget(((2, 41),))) == [1, 0]
    with pytest.raises(ConfigError, match=r"^keep_parameters=39 has no room for one module at rank 1: raise it\.$"):
        ranks_in_proportion([3.0, 0.1], [1, 1], [40, 10], Budget(((2, 39),)))


@pytest.mark.parametrize(
    ("ranks", "settings", "group", "message"),
    [
        ("large", {}, "none", "ranks='large' is not known: choose one of equal, proportional."),
        ("proportional", {"select_steps": 9}, "none", "and selection='credit' makes none: set selection='gradient'."),
        ("proportional", {"keep": 3}, "none", "and keep=3 is a number of modules: set keep_parameters."),
        ("proportional", {}, "qkv", "ranks='proportional' compares single modules: leave group='qkv' out."),
    ],
)
def test_what_cannot_be(ranks, settings, group, message):
    with pytest.raises(ConfigError) as error:
        check_ranks(ranks, WeightLoraConfig(**settings), group, {})
    assert str(error.value).endswith(message)


def test_experts_are_refused():
    with pytest.raises(ConfigError, match=r"^ranks='proportional' needs modules, and 'experts.up' is a parameter"):
        check_ranks("proportional", WeightLoraConfig(), "none", {"q": "module", "experts.up": "parameter"})


@pytest.mark.parametrize("settings", [{"expand": "qr"}, {"keep_step_time": 0.5}])
def test_other_budgets_and_growing_ranks_are_refused(settings):
    with pytest.raises(ConfigError, match="ranks='proportional'"):
        select(tiny_bert(), BATCHES, WeightLoraConfig(**settings), ranks="proportional")


def test_all_modules_share_a_quarter_by_the_scores_of_the_probe():
    equal = select(lora_bert(), BATCHES)
    made = select(lora_bert(), BATCHES, ranks="proportional")
    assert made.scores == equal.scores and len(made.kept) > len(equal.kept)
    before, after = (made.trainable_parameters[name] for name in ("before", "after"))
    assert 0.8 * before / 4 < after <= before / 4
    kept = [module for module in made.modules if module.kept]
    by_score = [module.rank for module in sorted(kept, key=lambda module: module.score)]
    assert by_score == sorted(by_score) and len(set(by_score)) > 1
    assert {module.scaling for module in kept} == {module.scaling for module in equal.kept}
    assert "rank_pattern" in made.to("peft")
