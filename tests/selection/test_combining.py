"""Choices from finished selections: by groups, and by the mean rank over seeds."""

import pytest

from weightlora import Selection, WeightLoraConfig
from weightlora.errors import ConfigError
from weightlora.selection.combining import Wishes, check_wishes, combine
from weightlora.selection.module import Module
from weightlora.selection.proportional import Start

NAMES = ["0.q_proj", "0.k_proj", "0.v_proj", "0.o_proj", "1.o_proj"]
STARTS = [
    Start(name, "module", rank, 2.0, rank * cost, cost, 1, 100)
    for name, rank, cost in zip(NAMES, [4, 2, 4, 4, 4], [10, 5, 5, 10, 10], strict=True)
]
CONFIG = WeightLoraConfig(keep=3, keep_parameters=120, select_steps=2)


def run(*scores: float, kept=()) -> Selection:
    modules = tuple(
        Module(name, "module", name in kept, score, float(name in kept), 4 if name in kept else None, 7.0, 10)
        for name, score in zip(NAMES, scores, strict=True)
    )
    history = ({"step": 1, "score": list(scores)}, {"step": 2, "kept": list(kept), "ranks": dict.fromkeys(kept, 4)})
    return Selection(
        modules,
        {"selection": "credit"},
        lora={"r": 4, "lora_alpha": 8},
        history=history,
        trainable_parameters={"before": 150, "after": 80},
    )


def kept_of(selection: Selection) -> list[str]:
    return [module.name for module in selection.kept]


def test_one_run_without_groups_is_that_run():
    one = run(5, 4, 3, 2, 1, kept=NAMES[:3])
    assert combine([one], STARTS, CONFIG, Wishes()) is one


def test_groups_are_chosen_whole_and_the_cost_is_said():
    one = run(3, 0.5, -1, 2.8, 2.4, kept=["0.q_proj", "0.o_proj", "1.o_proj"])
    made = combine([one], STARTS, CONFIG, Wishes("qkv"))
    assert kept_of(made) == ["0.o_proj", "1.o_proj"], "the group has 2.5: third, and then there is no room for it"
    assert made.grouping == {
        "group": "qkv",
        "modules": 2,
        "parameters": 80,
        "without_groups": {"modules": 3, "parameters": 120},
        "completed": {"modules": 5, "parameters": 150},
    }
    better = combine([run(3, 0.5, -0.6, 2.8, 2.4)], STARTS, CONFIG, Wishes("qkv"))
    assert kept_of(better) == NAMES[:3]
    assert [module.rank for module in better.kept] == [4, 2, 4] and better.alpha_pattern == {"0.k_proj": 4}
    assert [(m.omega, m.rank, m.scaling) for m in better.modules[3:]] == 2 * [(0.0, None, None)]
    assert better.trainable_parameters == {"before": 150, "after": 70}
    decision = {"step": 2, "kept": NAMES[:3], "ranks": {"0.q_proj": 4, "0.k_proj": 2, "0.v_proj": 4}}
    assert list(better.history) == [{"step": 1, "score": [3, 0.5, -0.6, 2.8, 2.4]}, decision]
    assert better.seeds is None


def test_over_seeds_the_mean_rank_chooses_and_each_choice_is_counted():
    runs = [run(9, 8, 7, 1, 2), run(1, 8, 2, 9, 7), run(1, 9, 2, 8, 7)]
    made = combine(runs, STARTS, CONFIG, Wishes(seeds=3))
    # mean ranks: (1 + 5 + 5) / 3, (2 + 2 + 1) / 3, (3 + 4 + 4) / 3, (5 + 1 + 2) / 3, (4 + 3 + 3) / 3
    assert kept_of(made) == ["0.k_proj", "0.o_proj", "1.o_proj"]
    assert made.seeds == {"0.q_proj": 1, "0.k_proj": 3, "0.v_proj": 1, "0.o_proj": 2, "1.o_proj": 2}
    assert [module.score for module in made.modules] == pytest.approx([11 / 3, 25 / 3, 11 / 3, 6, 16 / 3])
    assert made.history == () and made.grouping is None


def test_over_seeds_groups_are_ranked_by_their_sums(tmp_path):
    runs = [run(1, 1, 1, 2, 2.5), run(1, 1, 1, 2, 2.9), run(0, 0, 1, 2, 2.5)]
    made = combine(runs, STARTS, CONFIG, Wishes("qkv", 3))
    assert kept_of(made) == NAMES[:3]
    assert made.seeds == dict.fromkeys(NAMES[:3], 2) | dict.fromkeys(NAMES[3:], 1)
    made.save(tmp_path / "run")
    again = Selection.load(tmp_path / "run")
    assert (again.seeds, again.grouping) == (made.seeds, made.grouping)


def test_gates_that_are_ranked_by_magnitude_are_combined_by_magnitude():
    config = WeightLoraConfig(keep=3, select_steps=2, selection="stoiht", rank_by="magnitude")
    groups = combine([run(-3, 3, 0, 2, 0)], STARTS, config, Wishes("qkv"))
    assert kept_of(groups) == NAMES[:3] and groups.modules[0].score == 3
    over_seeds = combine([run(-3, 0, 0.5, 2, 0), run(-3, 0, 0, 2, 0.5)], STARTS, config, Wishes(seeds=2))
    assert kept_of(over_seeds)[0] == "0.q_proj"


@pytest.mark.parametrize(
    ("settings", "group", "seeds", "message"),
    [
        ({}, "none", 0, "seeds=0 must be a whole number of at least 1"),
        ({}, "none", 1.5, "seeds=1.5 must be a whole number"),
        ({}, "none", True, "seeds=True must be"),
        ({}, "head", 1, "group='head' is not known"),
        ({"rounds": 2}, "qkv", 1, "group='qkv' chooses from the scores at the end, and rounds=2"),
        ({"rounds": 2}, "none", 2, "seeds=2 chooses from the scores at the end, and rounds=2"),
        (
            {"selection": "gradient", "select_steps": 0},
            "layer",
            1,
            "group='layer' compares layers, and selection='gradient' scores an adapter relative to its layer: set",
        ),
        ({"expand": "qr"}, "layer", 1, "expand='qr' changes adapters before: leave expand at 'none'"),
    ],
)
def test_wishes_that_do_not_go_together(settings, group, seeds, message):
    with pytest.raises(ConfigError, match=message):
        check_wishes(WeightLoraConfig(**{"keep": 3, "select_steps": 9} | settings), Wishes(group, seeds))


def test_ranks_in_proportion_fill_the_budget_at_the_scaling_of_the_start():
    config = WeightLoraConfig(keep_parameters=75)
    made = combine([run(4, 2, 0.5, 0, 3)], STARTS, config, Wishes(ranks="proportional"))
    # a rank costs 10, 5, 5, 10 and 10; the next one that would grow is that of 0.q_proj, for which there is no room
    assert made.ranks == {"0.q_proj": 3, "0.k_proj": 2, "1.o_proj": 3} and kept_of(made) == list(made.ranks)
    assert made.alphas == {"0.q_proj": 6, "0.k_proj": 4, "1.o_proj": 6} and set(made.scalings.values()) == {2.0}
    assert made.trainable_parameters == {"before": 150, "after": 70}
    assert made.history[-1] == {"step": 2, "kept": list(made.ranks), "ranks": made.ranks}
    assert made.rank_rule == "proportional"
    several = combine([run(4, 2, 0.5, 0, 3), run(4, 2, 0.5, 9, 3)], STARTS, config, Wishes("none", 2, "proportional"))
    assert several.ranks["0.o_proj"] == 3 and several.seeds["0.o_proj"] == 1 and several.seeds["0.q_proj"] == 2


def test_a_budget_is_checked_once_the_adapters_are_known():
    config = WeightLoraConfig(keep=1, select_steps=9)
    check_wishes(config, Wishes("layer"))
    with pytest.raises(ConfigError, match="at least 4 modules in each group, and keep is 1"):
        check_wishes(config, Wishes("layer"), STARTS[:4])
