"""Ranks in proportion to scores are the largest that fit, and what cannot have them is one sentence."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from models import batch, lora_bert, tiny_bert
from peft import LoraConfig, get_peft_model

from weightlora import WeightLoraConfig, select
from weightlora.adapters import find_adapters
from weightlora.budget import Budget
from weightlora.errors import ConfigError
from weightlora.selection.proportional import Start, check_ranks, ranks_in_proportion

BATCHES = [batch(step) for step in range(4)]


def start(per_rank: float, fixed: int, unit: int, most: int, kind: str = "module") -> Start:
    return Start("experts.up", kind, 1, 1.0, int(per_rank) + fixed, per_rank, unit, most)


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=8).filter(lambda scores: max(scores) > 0.1),
    st.integers(20, 10_000),
)
@example(scores=[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0], most=20)  # equal scores, and room for one of them
@example(scores=[3.0, 1.0, 10.0, 0.5, 0.0, 0.0, 0.625], most=124)  # rounding leaves room for a whole rank
def test_ranks_are_the_largest_that_fit(scores, most):
    starts = [start(size, 0, 1, 10**6) for size in (3, 5, 3, 8, 5, 3, 13, 2)[: len(scores)]]
    budget = Budget(((len(scores), most),))
    ranks = ranks_in_proportion(scores, starts, budget)
    assert spent(ranks, starts) <= most and not any(r for r, score in zip(ranks, scores, strict=True) if score == 0)
    by_score = [rank for _, rank in sorted(zip(scores, ranks, strict=True))]
    assert by_score == sorted(by_score)
    grown = min((rank + 0.5) / one for rank, one in zip(ranks, scores, strict=True) if one) * (1 + 1e-9)
    assert spent([round(score * grown) for score in scores], starts) > most, "the next rank that grows does not fit"


def spent(ranks, starts) -> int:
    return sum(one.cost(rank) for one, rank in zip(starts, ranks, strict=True))


def test_ranks_are_multiples_of_the_unit_up_to_the_most_and_pay_what_does_not_grow():
    starts = [start(10.0, 7, 2, 100), start(10.0, 7, 1, 3)]
    assert ranks_in_proportion([1.0, 1.0], starts, Budget(((2, 1000),))) == [94, 3]
    assert spent([94, 3], starts) == 984
    assert ranks_in_proportion([1.0, 0.1], starts, Budget(((2, 27),))) == [2, 0]


def test_a_budget_below_the_best_module_at_rank_1_is_refused():
    starts = [start(40.0, 0, 1, 8), start(10.0, 0, 1, 8)]
    assert ranks_in_proportion([3.0, 0.1], starts, Budget(((2, 41),))) == [1, 0]
    message = (
        r"^keep_parameters=39 has no room for the module with the largest score at its lowest rank: raise it, or "
    )
    with pytest.raises(ConfigError, match=message):
        ranks_in_proportion([3.0, 0.1], starts, Budget(((2, 39),)))


@pytest.mark.parametrize(
    ("ranks", "settings", "group", "message"),
    [
        ("large", {}, "none", "ranks='large' is not known: choose one of 'equal', 'proportional'."),
        ("proportional", {"select_steps": 9}, "none", "and selection='credit' makes none: set selection='gradient'."),
        ("proportional", {"keep": 3}, "none", "and keep=3 is a number of modules: set keep_parameters."),
        ("proportional", {}, "qkv", "ranks='proportional' compares single modules: leave group='qkv' out."),
    ],
)
def test_what_cannot_be(ranks, settings, group, message):
    with pytest.raises(ConfigError) as error:
        check_ranks(ranks, WeightLoraConfig(**settings), group)
    assert str(error.value).endswith(message)


def test_experts_are_refused():
    with pytest.raises(ConfigError, match=r"^ranks='proportional' needs modules, and 'experts.up' is a parameter"):
        check_ranks("proportional", WeightLoraConfig(), "none", [start(1.0, 0, 1, 8, "parameter")])


@pytest.mark.parametrize("settings", [{"expand": "qr"}, {"keep_step_time": 0.5}])
def test_other_budgets_and_growing_ranks_are_refused(settings):
    with pytest.raises(ConfigError, match="ranks='proportional'"):
        select(tiny_bert(), BATCHES, WeightLoraConfig(**settings), ranks="proportional")


@pytest.mark.parametrize("keep", [100, 0.001])
def test_a_budget_below_one_adapter_at_the_first_rank_says_how_to_begin(keep):
    settings = WeightLoraConfig(keep_parameters=keep)
    message = (
        rf"^keep_parameters={keep} of [\d,]+ is less than the smallest adapter has at rank 8 .* begin with r=1, and"
    )
    with pytest.raises(ConfigError, match=message):
        select(tiny_bert(), BATCHES, settings, lora=LoraConfig(r=8, target_modules=["query"]), ranks="proportional")
    if keep == 100:
        lora = LoraConfig(r=1, lora_alpha=1, target_modules=["query"])
        choice = select(tiny_bert(), BATCHES, settings, lora=lora, ranks="proportional")
        assert 0 < choice.trainable_parameters["after"] <= keep


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


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}, {}])
def test_the_parameters_are_those_of_the_model_that_peft_builds(settings):
    model = lora_bert(**settings)
    made = select(model, BATCHES, WeightLoraConfig(keep_parameters=0.3), ranks="proportional")
    built = get_peft_model(
        tiny_bert(),
        LoraConfig(
            target_modules=made.target_modules,
            r=made.rank,
            rank_pattern=made.rank_pattern,
            lora_alpha=made.alpha,
            alpha_pattern=made.alpha_pattern,
            **settings,
        ),
    )
    adapters = find_adapters(built)
    assert sum(adapter.size for adapter in adapters) == made.trainable_parameters["after"]
    assert made.trainable_parameters["after"] <= 0.3 * made.trainable_parameters["before"]
    assert {a.name: pytest.approx(a.scaling) for a in adapters} == made.scalings
