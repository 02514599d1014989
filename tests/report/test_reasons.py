"""Why a module was kept or dropped."""

from dataclasses import replace

from weightlora.report.history import Decision
from weightlora.report.reasons import places_by_score, reasons, stopped_by_bound
from weightlora.selection import Module, Selection


def selection(rows: list[tuple[float, bool, int]], final: bool = True, **config) -> Selection:
    modules = tuple(
        Module(f"layers.{index}.q", "module", kept, score, float(kept), 8 if kept else None, None, parameters)
        for index, (score, kept, parameters) in enumerate(rows)
    )
    return Selection(modules, {"keep": 2, "select_steps": 5} | config, "train" if final else "select", 5)


# Two of four modules may have half of the 600 parameters: the largest score does not fit beside another one.
BOUNDED = [(0.9, False, 300), (0.8, True, 100), (0.7, True, 100), (0.1, False, 100)]


def test_places_are_shared_by_equals():
    assert places_by_score([0.5, None, 0.9, 0.5, 0.1], {}) == [2, None, 1, 2, 4]


def test_places_are_by_magnitude_where_the_rule_compares_magnitudes():
    """Gates may end below 0, and those of dropped modules at 0."""
    rows = [(0.0, False, 100), (-0.5, True, 100), (0.2, True, 100)]
    chosen = selection(rows, selection="stoiht", rank_by="magnitude")
    assert reasons(chosen, [])[:2] == [
        "Dropped: place 3 of 3 by score, and 2 are kept.",
        "Kept: place 1 of 3 by score.",
    ]
    assert places_by_score([0.0, -0.5, 0.2], chosen.config) == [3, 1, 2]


def test_a_high_score_that_the_bound_kept_out_is_named():
    found = reasons(selection(BOUNDED), [])
    assert stopped_by_bound(selection(BOUNDED), []) == [True, False, False, False]
    assert found == [
        "Dropped by the bound on parameters: place 1 of 4 by score, but with its 300 parameters the kept modules "
        "would have more than 300.",
        "Kept: place 2 of 4 by score.",
        "Kept: place 3 of 4 by score.",
        "Dropped: place 4 of 4 by score, and 2 are kept.",
    ]


def test_a_module_that_no_gradient_reached_is_not_blamed_on_the_bound():
    """Its score is 0, which is more than the credit of a module that made the loss larger. The rule ranks it last."""
    rows = [(0.3, True, 100), (0.0, False, 100), (-0.2, True, 100), (-0.4, False, 100)]
    for settings in ({"keep": 2}, {"keep": None, "keep_parameters": 200}):
        chosen = selection(rows, selection="credit", **settings)
        assert stopped_by_bound(chosen, []) == [False] * 4
        assert places_by_score([0.3, 0.0, -0.2, -0.4], chosen.config) == [1, 4, 2, 3]
        assert reasons(chosen, [])[1] == "Dropped: no gradient reached it, so nothing is known of it."
    kept = selection([(0.3, True, 100), (0.0, True, 100), (0.0, False, 100)], selection="gradient")
    assert reasons(kept, [])[1] == "Kept: no gradient reached it, but the budget has room."


def test_a_budget_of_parameters_alone():
    found = selection([(0.9, False, 300), (0.8, True, 100), (0.1, False, 100)], keep=None, keep_parameters=150)
    assert stopped_by_bound(found, []) == [True, False, False]


def test_a_measured_budget_is_named_and_not_the_parameters():
    """The kept set leaves most of the parameters unused: the price of a step decided."""
    rows = [(0.9, False, 300), (0.8, False, 100), (0.7, True, 100), (0.1, False, 100)]
    for name, value, words in (("step_time", 0.6, "step time"), ("memory", "6GiB", "memory")):
        for keep in (None, 1):
            found = selection(rows, keep=keep, **{f"keep_{name}": value})
            assert stopped_by_bound(found, []) == [True, True, False, False]
            why = f"Dropped by the budget of {words}: place 1 of 4 by score, but the best set that fits lacks it."
            assert reasons(found, [])[0] == why


def test_the_bound_is_not_blamed_for_what_it_did_not_do():
    fits = [(0.9, False, 100), (0.8, True, 100), (0.7, True, 100), (0.1, False, 100)]
    two = [Decision(3, frozenset({"layers.1.q", "layers.2.q", "layers.3.q"})), Decision(5, frozenset())]
    for chosen, decisions in (
        (selection(fits), []),  # the best would have fitted
        (selection(BOUNDED), two),  # rounds
        (selection(BOUNDED, final=False), []),
        (replace(selection(BOUNDED), seeds={}), []),
        (replace(selection(BOUNDED), grouping={"group": "qkv"}), []),
        (selection(BOUNDED, keep="many"), []),  # no settings of ours
        (selection([(score, False, size) for score, _, size in BOUNDED]), []),
    ):
        assert stopped_by_bound(chosen, decisions) == [False] * 4


def test_a_module_that_left_with_its_group():
    grouped = replace(selection(BOUNDED), grouping={"group": "qkv"})
    assert reasons(grouped, [])[0] == "Dropped with its group: place 1 of 4 by score, and whole groups were compared."


def test_over_several_seeds_the_place_by_the_mean_score_is_not_the_reason():
    """The scores are means over the seeds. The places, which decide, are found at each seed."""
    several = replace(selection(BOUNDED), seeds={})
    assert reasons(several, [])[:2] == [
        "Dropped: place 1 of 4 by score. The mean place over the seeds decided, within the budget.",
        "Kept: place 2 of 4 by score. The mean place over the seeds decided, within the budget.",
    ]
    assert reasons(replace(several, rank_rule="proportional"), [])[1] == "Kept: place 2 of 4 by score."


def test_rounds_and_a_choice_that_is_not_made():
    rounds = [Decision(3, frozenset({"layers.0.q", "layers.1.q", "layers.2.q"})), Decision(5, frozenset())]
    assert reasons(selection(BOUNDED), rounds)[3] == "Dropped at step 3, before the last round."
    assert set(reasons(selection(BOUNDED, final=False), [])) == {"The choice is not made yet."}


def test_without_scores():
    chosen = selection(BOUNDED)
    chosen = replace(chosen, modules=tuple(replace(module, score=None) for module in chosen.modules))
    assert reasons(chosen, []) == ["Dropped.", "Kept.", "Kept.", "Dropped."]
