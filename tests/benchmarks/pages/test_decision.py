"""The page on which rule is the default."""

from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from benchmarks.decision import CANDIDATES, FIRST, SECOND, Look
from benchmarks.pages.costs import NEW_TASKS
from benchmarks.pages.decision import _of_winner, draw_worth, render_decision_markdown
from benchmarks.pages.replication import SEEDS as NEW_SEEDS
from benchmarks.pages.replication import weigh_replication
from benchmarks.pages.runs import runs_in
from benchmarks.pages.tuned import SEEDS, weigh_tuned
from benchmarks.pages.winner import corrected, references_of, weigh
from pictures import labels, means

from weightlora.compare.statistics import excludes_zero

LABELS = {"lora": 1.0, "peft-default": 0.9, **dict.fromkeys(CANDIDATES, 0.5), "probe": 0.4}
LABELS |= {candidate.alike: 0.8 for candidate in CANDIDATES.values()}


def run(task: str, label: str, seed: int, loss: float) -> SimpleNamespace:
    fixed = {"names": ["a", "b", "c"], "kept": ["a", "b"], "evidence": None, "settings": {}}
    fixed |= {"metric": "accuracy", "metric_units": {"accuracy": "fraction"}}
    return SimpleNamespace(task=task, label=label, seed=seed, held_out_loss=loss, value=1 - loss / 2, **fixed)


def stored(look: Look = FIRST) -> list[SimpleNamespace]:
    """All runs of a look."""
    return [
        run(task, label, seed, loss + 0.001 * ((seed * place) % 5))
        for task, count in look.seeds.items()
        for place, (label, loss) in enumerate(LABELS.items(), 1)
        for seed in range(count)
    ]


def test_the_first_look_is_decided():
    page = render_decision_markdown(stored())
    assert "**probe** becomes the default: probe has the smallest mean regret" in page and "second look\n" not in page
    assert "| probe | 0.0000 | 0.0000 | 0.0000 | 0.0000 | 0.0000 | 0.0000 |" in page
    assert page.count("| weightlora | peft-default |") == 1 and "▼" in page
    assert "evidence.md#what-the-default-is-worth" in page and "LoRA on all modules:" not in page


def test_a_candidate_that_is_alone_has_no_table_of_regrets():
    first, second = render_decision_markdown(stored(SECOND)).split("## The second look")
    assert "| regret |" in first and "| regret |" not in second
    assert "**probe** stays the default" in second and "It is the only candidate" in second


def test_random_sets_that_cannot_change_the_winner_may_be_absent():
    first = render_decision_markdown([one for one in stored() if one.label != "random-like-gora"])
    assert "**probe** becomes the default" in first
    assert "| gora-per-block | random-like-gora |  |  |  |  |  | not run: the winner does not depend on it |" in first
    assert first.count("not run: the winner") == 1


def test_with_a_run_missing_there_is_no_page():
    runs = [one for one in stored() if (one.label, one.seed, one.task) != ("random-like-probe", 4, "spam")]
    assert render_decision_markdown(runs) == ""


def test_the_picture_has_a_panel_for_each_reference_and_a_row_for_each_task(figure_of):
    """Figures are those of the stored runs, in percent of the reference's mean loss."""
    runs, default, counts = _of_winner()
    worth = weigh(runs, default, counts)
    panels = figure_of(draw_worth).axes
    assert [axes.get_title() for axes in panels] == [*worth.versus]
    assert labels(panels[0])[:2] == ["Rotten Tomatoes", "VADER tweets"] and len(labels(panels[0])) == len(counts) == 10
    for axes, (words, by_task) in zip(panels, worth.versus.items(), strict=True):
        drawn = {row: (mean, filled) for row, mean, filled in means(axes)}
        assert sorted(drawn) == [row for row, found in enumerate(by_task.values()) if found], words
        for row, (task, found) in enumerate(by_task.items()):
            if found:
                mean, filled = drawn[row]
                reference = fmean(own.held_out_loss for own in runs[task, references_of(default)[words]].values())
                assert mean == pytest.approx(100 * found["mean"] / reference) and filled == excludes_zero(found)


def test_corrected_for_the_number_of_tasks_fewer_differences_are_significant():
    """The evidence page and README say so."""
    runs, default, counts = _of_winner()
    worth, tuned = weigh(runs, default, counts), weigh_tuned(runs_in("tuned"))
    assert [corrected(by_task, counts) for by_task in worth.versus.values()] == [(2, 0), (2, 0), (1, 0), (1, 1)]
    eight = [corrected(by_task, dict.fromkeys(by_task, SEEDS)) for by_task in tuned.versus.values()]
    assert eight == [(3, 0), (2, 0), (0, 0), (0, 0)]
    new = [corrected(by_task, dict.fromkeys(by_task, NEW_SEEDS)) for by_task in weigh_replication().versus.values()]
    assert new == [(2, 0), (1, 0), (1, 0), (0, 1)]
    assert "for many tasks: better than random sets on 2 of 10, 3 of 8 and 2 of 8." in readme()


def test_all_runs_of_minilm_keep_the_same_set():
    """README says so of its three comparisons."""
    worths = weigh(*_of_winner()), weigh_tuned(runs_in("tuned")), weigh_replication()
    by_model = [worth.kept.items() for worth in worths]
    kept = {one for models in by_model for names, (sets, _) in models if len(names) == 37 for one in sets}
    assert len(kept) == 1 and all(models for models in by_model)
    assert "With MiniLM, all runs keep the same set: you could write it by hand." in readme()


def test_readme_names_the_tasks_on_which_the_default_is_worse():
    """The plan asks for it."""
    worth = weigh(*_of_winner())
    worse = {
        (words, NEW_TASKS[task])
        for words, by_task in worth.versus.items()
        for task, one in by_task.items()
        if excludes_zero(one) and one["mean"] > 0
    }
    tasks = ("VADER tweets", "supersenses", "SmolLM2 language modelling")
    assert worse == {("LoRA on all modules", task) for task in tasks}
    assert "worse than LoRA on all modules on tweets, supersenses and SmolLM2 language modelling." in readme()


def readme() -> str:
    return " ".join((Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8").split())
