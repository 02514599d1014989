"""The rate of LoRA, kept: which stored runs have the rate that a row is about, and what they are compared with."""

from pathlib import Path

import pytest
from benchmarks.pages import untuned
from benchmarks.pages.reliability import LEARNED
from benchmarks.results import losses
from stored import result

from weightlora.compare.statistics import excludes_zero, paired

LORAS = {"first": 0.001, "film-reviews": 0.002}


def run(label, task, rate, accuracy, seed):
    settings = {"label": label, "learning_rate": rate}
    loss = 1.2 - accuracy + 0.01 * seed
    return result(label, seed, loss, task=task, accuracy=accuracy + 0.001 * seed, settings=settings)


def runs(label, rates, accuracy):
    return [run(label, task, rate, accuracy, seed) for task, rate in rates.items() for seed in untuned.SEEDS]


@pytest.fixture
def stored(monkeypatch):
    """The tuned probe has LoRA's rate on the first task, and twice that on the other one."""
    studies = {
        "tuned": [
            *runs("lora", LORAS, 0.8),
            *runs("probe", {"first": 0.001, "film-reviews": 0.004}, 0.79),
            *runs("peft-default", {"first": 0.002, "film-reviews": 0.002}, 0.7),
            *runs("random-like-probe", {"first": 0.001}, 0.6),
        ],
        "shares": runs("probe-30", {"first": 0.001}, 0.81),
        "untuned": [
            *runs("probe-1x", {"film-reviews": 0.002}, 0.796),
            *runs("probe-2x", {"first": 0.002}, 0.64),
            *runs("probe-30-1x", {"film-reviews": 0.002}, 0.81),
            *runs("peft-default-1x", {"first": 0.001}, 0.7),
            *runs("along-gradient-1x", LORAS, 0.82),
        ],
    }
    monkeypatch.setattr(untuned, "TASKS", tuple(LORAS))
    monkeypatch.setattr(untuned, "runs_in", studies.get)
    return studies


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def test_each_row_has_the_runs_of_its_rate_wherever_they_are_stored(stored):
    assert [row[:3] for row in cells(untuned.untuned_by_task())] == [
        ["first", "tuned at one seed", "0.001"],
        ["first", "LoRA's", "0.001"],
        ["first", "twice LoRA's", "0.002"],
        ["first", "LoRA's, 30 % of the parameters", "0.001"],
        ["first", "LoRA's, started along the gradient", "0.001"],
        ["film-reviews", "tuned at one seed", "0.004"],
        ["film-reviews", "LoRA's", "0.002"],
        ["film-reviews", "twice LoRA's", "0.004"],
        ["film-reviews", "LoRA's, 30 % of the parameters", "0.002"],
        ["film-reviews", "LoRA's, started along the gradient", "0.002"],
    ]
    differences = [[cell.split()[0] for cell in row[3:]] for row in cells(untuned.untuned_by_task())]
    assert differences[1:4] == [["+0.0100", "-0.0100"], ["+0.1600", "-0.1600"], ["-0.0100", "+0.0100"]]
    assert differences[4] == ["-0.0200", "+0.0200"] and differences[6] == ["+0.0040", "-0.0040"]


def test_references_count_at_the_rate_of_the_row_where_they_are_complete(stored):
    tuned, same, twice, larger, _ = cells(untuned.untuned())
    worse = "better on 0 of 2 tasks, worse on 2"
    assert tuned == ["tuned at one seed", "", "better on 2 of 2 tasks, worse on 0", worse, *tuned[4:]]
    assert tuned[4:] == ["-1.0 points", "0 of 2 tasks", "0 of 10"]
    assert same[:4] == ["LoRA's", "", "better on 2 of 2 tasks, worse on 0", worse]
    assert same[4:] == ["-0.7 points", "1 of 2 tasks", "0 of 10"]
    assert twice[1:3] == ["", ""] and larger[1:3] == ["", ""]
    stored["untuned"] += runs("random-like-probe-1x", {"film-reviews": 0.002}, 0.6)
    assert cells(untuned.untuned())[1][1] == "better on 2 of 2 tasks, worse on 0"


def test_a_way_counts_when_all_its_tasks_are_complete(stored):
    stored["untuned"] = [one for one in stored["untuned"] if (one.label, one.seed) != ("probe-1x", 5)]
    assert [row[0] for row in cells(untuned.untuned())] == [way.words for way in untuned.WAYS if way.words != "LoRA's"]
    assert sum(row[1] == "LoRA's" for row in cells(untuned.untuned_by_task())) == 1


def test_runs_do_not_learn_that_end_at_a_guess_or_below_the_bound_of_film_reviews(stored):
    for task, accuracy, failed in (("first", LEARNED - 0.01, 0), ("film-reviews", LEARNED - 0.01, 1)):
        stored["tuned"] = [
            run("probe", task, one.settings["learning_rate"], accuracy, 5)
            if (one.label, one.task, one.seed) == ("probe", task, 5)
            else one
            for one in stored["tuned"]
        ]
        assert cells(untuned.untuned())[0][-1] == f"{failed} of 10"


def test_the_sentences_have_the_figures_of_the_stored_runs():
    docs = Path(__file__).parents[3] / "docs"
    log = " ".join((docs / "log.md").read_text(encoding="utf-8").split())
    same = next(row for row in cells(untuned.untuned()) if row[0] == "LoRA's")
    assert same[3:4] + same[5:] == ["better on 0 of 8 tasks, worse on 3", "5 of 8 tasks", "0 of 40"]
    assert "the metric is level on five of eight tasks**" in log and "All 40 runs learn." in log
    rows = {row[0]: row for row in cells(untuned.untuned_by_task()) if row[1] == "LoRA's"}
    higher = {task: float(row[3].split()[0]) for task, row in rows.items() if "▲" in row[3]}
    assert higher.keys() == {"vader-tweets-all", "rotten-tomatoes-all", "editorials"}
    assert f"by {min(higher.values()):.3f} to {max(higher.values()):.3f}" in log
    assert f"editorials, {-100 * float(rows['editorials'][4].split()[0]):.1f} points are missing instead of 2.8" in log


def test_the_sentence_about_pefts_list_has_the_figures_of_the_stored_runs():
    log = " ".join((Path(__file__).parents[3] / "docs/log.md").read_text(encoding="utf-8").split())
    same, tuned = untuned.runs_of(untuned.SAME), untuned.runs_of(untuned.WAYS[0])
    found = {t: paired(losses(same[t, "probe"]), losses(same[t, "peft-default"])) for t in untuned.TASKS}
    lower = {task: -one["mean"] for task, one in found.items() if excludes_zero(one)}
    assert found.keys() - lower.keys() == {"spam", "editorials"} and min(lower.values()) > 0
    assert f"by {min(lower.values()):.3f} to {max(lower.values()):.3f}, and higher on none. But that rate" in log
    rates = [
        [runs[task, "peft-default"][untuned.SEEDS[0]].settings["learning_rate"] for runs in (same, tuned)]
        for task in untuned.TASKS
    ]
    assert sorted(high / low for low, high in rates) == [1, 1, *[2] * 6]


def test_the_sentences_about_random_sets_have_the_figures_of_the_stored_runs():
    docs = Path(__file__).parents[3] / "docs"
    log, choosing = (
        " ".join((docs / f"{name}.md").read_text(encoding="utf-8").split()) for name in ("log", "choosing")
    )
    label = untuned.REFERENCES[0]
    same, tuned = untuned.runs_of(untuned.SAME), untuned.runs_of(untuned.WAYS[0])
    found = {t: paired(losses(same[t, "probe"]), losses(same[t, label])) for t in untuned.TASKS}
    lower = {task: -one["mean"] for task, one in found.items() if excludes_zero(one)}
    assert found.keys() - lower.keys() == {"spam", "editorials"} and min(lower.values()) > 0
    assert (
        f"on the same six tasks, by {min(lower.values()):.3f} to {max(lower.values()):.3f}, and higher on none" in log
    )
    rates = [
        [runs[task, label][untuned.SEEDS[0]].settings["learning_rate"] for runs in (same, tuned)] for task in found
    ]
    assert sorted(high / low for low, high in rates) == [0.5, 0.5, 1, *[2] * 5]
    assert "half the rate that tuning found for random sets on five tasks, and for PEFT's list on six." in choosing
    assert "the default's loss is significantly lower on six of eight tasks for each, and higher on none." in choosing
    failed = [
        untuned.failures([run for task in untuned.TASKS for run in same[task, name].values()])
        for name in (label, "peft-default")
    ]
    assert failed == [2, 2] and "two each do not learn" in log


def test_the_rate_of_lora_and_the_tuned_one_are_level_where_they_differ():
    """The log and the advice say so, and how twice that rate does."""
    docs = Path(__file__).parents[3] / "docs"
    log, choosing = (
        " ".join((docs / f"{name}.md").read_text(encoding="utf-8").split()) for name in ("log", "choosing")
    )
    tuned, same, twice = (
        {task: losses(untuned.runs_of(way)[task, "probe"]) for task in untuned.TASKS} for way in untuned.WAYS[:3]
    )
    changed = {task: paired(same[task], tuned[task]) for task in untuned.TASKS if same[task] != tuned[task]}
    lower = {task for task, found in changed.items() if found["mean"] < 0}
    assert lower == {"spam", "editorials", "supersenses"} and changed.keys() - lower == {
        "imdb-all",
        "vader-tweets-all",
    }
    assert not any(map(excludes_zero, changed.values()))
    assert "lower on spam, editorials and supersenses than at the tuned rate, and higher on IMDb and tweets; no" in log
    assert "between LoRA's rate and the tuned one, no difference of the loss is significant." in choosing
    doubled = {task: paired(twice[task], same[task]) for task in untuned.TASKS if twice[task] != same[task]}
    assert [task for task, one in doubled.items() if one["mean"] < 0 and excludes_zero(one)] == ["film-reviews"]
    assert "and on film reviews the loss is significantly lower. All 40 runs learn there, too." in log


def test_the_sentences_about_a_larger_share_have_the_figures_of_the_stored_runs():
    log = " ".join((Path(__file__).parents[3] / "docs/log.md").read_text(encoding="utf-8").split())
    (larger,) = (row for row in cells(untuned.untuned()) if row[0].startswith("LoRA's, 30"))
    assert larger[3:4] + larger[5:] == ["better on 0 of 8 tasks, worse on 1", "5 of 8 tasks", "1 of 40"]
    rows = {row[0]: row for row in cells(untuned.untuned_by_task()) if row[1] == larger[0]}
    assert [task for task, row in rows.items() if "▲" in row[3]] == ["rotten-tomatoes-all"]
    missing = {task: f"{-100 * float(row[4].split()[0]):.1f}" for task, row in rows.items()}
    low = {task: points for task, points in missing.items() if float(points) > 0.5}
    assert low == {"imdb-all": "0.6", "rotten-tomatoes-all": "0.6", "editorials": "1.2"}
    assert "Editorials is missing 1.2 points, IMDb and Rotten Tomatoes 0.6 each" in log


def test_the_advice_has_the_counts_of_the_stored_runs():
    choosing, log = (
        " ".join((Path(__file__).parents[3] / f"docs/{name}.md").read_text(encoding="utf-8").split())
        for name in ("choosing", "log")
    )
    tuned, same, twice = cells(untuned.untuned())[:3]
    names = ("LoRA's", "twice LoRA's", "tuned on the validation split, with one seed")
    for name, row in zip(names, (same, twice, tuned), strict=True):
        worse = row[3].split(", worse on ")[1]
        assert f"| {name} | {row[5].removesuffix(' tasks')} | {worse} of 8 |" in choosing
    assert twice[3:4] + twice[6:] == ["better on 0 of 8 tasks, worse on 3", "0 of 40"]
    assert (
        "The metric is level on four tasks, and the loss is significantly higher on three (Rotten Tomatoes, products "
        "and editorials)" in log
    )
    rows = {row[0]: row for row in cells(untuned.untuned_by_task()) if row[1] == "twice LoRA's"}
    assert {task for task, row in rows.items() if "▲" in row[3]} == {"rotten-tomatoes-all", "products", "editorials"}
    assert f"Products loses {-100 * float(rows['products'][4].split()[0]):.1f} points" in log
