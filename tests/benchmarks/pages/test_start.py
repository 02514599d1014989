"""A start along the gradient: which runs are paired, and that only complete tasks count."""

from pathlib import Path
from statistics import fmean

import pytest
from benchmarks.decision import SECOND
from benchmarks.pages import start, untuned
from benchmarks.pages.runs import runs_in
from benchmarks.pages.winner import CLOSE, points_between
from benchmarks.results import by_seed, losses
from stored import result

LOSSES = {"probe": 0.5, "random-like-probe": 0.6, "peft-default": 0.45, "lora": 0.5}
SEEDS = {"first": 5, "second": 3}


def run(label, task, seed, loss, step=0.0, rate=0.001):
    settings = {"label": label, "learning_rate": rate}
    return result(label, seed, loss + step * seed, task=task, accuracy=1 - loss - step * seed, settings=settings)


@pytest.fixture
def stored(monkeypatch):
    """The start is better than the default on the first task, at twice the rate, and level on the second."""
    studies = {
        "": [
            run(label, task, seed, loss)
            for task in SEEDS
            for label, loss in LOSSES.items()
            for seed in range(SEEDS[task] + 2)
        ],
        "start": [
            *(run(start.LABEL, "first", seed, 0.4, step=0.01, rate=0.002) for seed in range(SEEDS["first"] + 1)),
            *(run(start.LABEL, "second", seed, 0.5 + 0.1 * (seed - 1)) for seed in range(3)),
        ],
        "rates": [run("probe-2e-3", task, seed, 0.3, rate=0.002) for task in SEEDS for seed in range(5)],
    }
    monkeypatch.setattr(start, "SECOND", SECOND._replace(seeds=SEEDS))
    monkeypatch.setattr(start, "runs_in", studies.get)
    return studies


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def test_both_starts_are_counted_against_each_reference(stored):
    assert cells(start.start()) == [
        ["the default at the same rate", "", "better on 0 of 2 tasks, worse on 1"],
        ["the default", "", "better on 1 of 2 tasks, worse on 0"],
        ["random sets", "better on 2 of 2 tasks, worse on 0", "better on 1 of 2 tasks, worse on 0"],
        ["PEFT's list", "better on 0 of 2 tasks, worse on 2", "better on 1 of 2 tasks, worse on 0"],
        ["LoRA on all modules", "better on 0 of 2 tasks, worse on 0", "better on 1 of 2 tasks, worse on 0"],
    ]


def test_each_task_has_differences_of_loss_and_metric_at_its_seeds(stored):
    first, second = cells(start.start_by_task())
    loss, metric = ["+0.1200", "-0.0800", "-0.1800", "-0.0300", "-0.0800"], ["-0.1200", "+0.0800", "+0.0800"]
    assert [cell.split()[0] for cell in first[1:]] == loss + metric
    assert second[0] == "second" and second[1] == second[2] and second[1].startswith("+0.0000 ± 0.24")


def test_the_default_may_not_have_run_at_the_same_rate(stored):
    stored["rates"].clear()
    assert [row[1] == "" for row in cells(start.start_by_task())] == [True, False]
    assert cells(start.start())[0][2] == "better on 0 of 1 tasks, worse on 0"


def test_a_task_counts_when_all_its_runs_are_there(stored):
    del stored["start"][0]
    assert [row[0] for row in cells(start.start_by_task())] == ["second"]
    del stored["start"][-1]
    assert not cells(start.start_by_task())


def test_at_the_rate_of_lora_each_complete_task_is_compared_with_the_default_and_with_lora(monkeypatch):
    tasks = ("first", "second")
    losses_of = {"probe": 0.5, "along-gradient-1x": 0.4, "lora": 0.45}
    every = [
        run(label, task, seed, loss, step=0.01 if label == "along-gradient-1x" else 0.0)
        for task in tasks
        for label, loss in losses_of.items()
        for seed in untuned.SEEDS
    ]
    monkeypatch.setattr(start, "TASKS", tasks)
    monkeypatch.setattr(untuned, "runs_in", {"tuned": every[:-1], "shares": [], "untuned": []}.get)
    (row,) = cells(start.start_untuned())
    assert [cell.split()[0] for cell in row] == ["first", "-0.0300", "+0.0200", "+0.0300", "-0.0200"]


def test_the_sentences_have_the_figures_of_the_stored_runs():
    log = " ".join((Path(__file__).parents[3] / "docs/log.md").read_text(encoding="utf-8").split())
    rows = {row[0]: row for row in cells(start.start_by_task())}
    decoder = "smollm2-imdb-lm-float32"
    assert {task: row[1][-1] for task, row in rows.items() if row[1].endswith(("▼", "▲"))} == {
        "film-reviews": "▼",
        decoder: "▼",
    }
    changed = {"supersenses": "▼", decoder: "▼", "film-reviews-long": "▲"}
    assert {task: row[2][-1] for task, row in rows.items() if row[2][-1] in "▼▲"} == changed
    assert all(cell.endswith("▼") for cell in rows[decoder][3:5]) and rows[decoder][1] == rows[decoder][2]
    films, language = (-float(rows[task][1].split()[0]) for task in ("film-reviews", decoder))
    assert f"film reviews, by {films:.3f}, and SmolLM2 in language modelling, by {language:.3f}, at all three" in log
    above = [f"{100 * float(cell.split()[0]):.1f}" for cell in rows["supersenses"][7:]]
    assert (
        f"{above[0]} points above the default's at half the rate, and {above[1]} points above that of LoRA on all"
        in log
    )
    same, far = (rows[task][1].replace("+", "").replace("\u2212", "-").split() for task in ("supersenses", "imdb-all"))
    assert f"differs by {float(same[0]):.3f} ± {float(same[2]):.3f}." in log
    assert f"The mean loss is {float(far[0]):.3f} ± {float(far[2]):.3f} above the default's at the same rate." in log
    runs = {
        (study, label): by_seed(runs_in(study))["imdb-all", label]
        for label, study in ((start.LABEL, "start"), ("probe", ""), ("probe-2e-3", "rates"))
    }
    ends = sorted(run.held_out_loss for run in runs.pop(("start", start.LABEL)).values())
    assert f"end at a loss of {ends[-2]:.2f} and {ends[-1]:.2f}" in log and ends[-3] < 0.5
    assert max(run.held_out_loss for own in runs.values() for run in own.values()) < 0.5


def test_the_mean_regret_and_the_level_metrics_are_those_of_the_stored_runs():
    log = " ".join((Path(__file__).parents[3] / "docs/log.md").read_text(encoding="utf-8").split())
    runs = start._runs()
    means = {
        task: [fmean(losses(runs[task, label]).values()) for label in (start.LABEL, "probe", "lora")]
        for task in SECOND.seeds
    }
    parts = {task: (own - default) / lora / len(means) for task, (own, default, lora) in means.items()}
    assert f"Mean regret is higher than the default's**, by {sum(parts.values()):.3f}." in log
    assert f"lowers it by {-parts['supersenses']:.3f}, and IMDb raises it by {parts['imdb-all']:.3f}." in log
    points = [points_between(runs[task, start.LABEL], runs[task, "lora"]) for task in means]
    assert sum(found >= -CLOSE for found in points if found is not None) == 6 and points.count(None) == 1
    assert "at most 0.5 points below that of LoRA on all modules on six of nine tasks, like the default's" in log
    longer = cells(start.start_by_task())[6]
    assert longer[0] == "film-reviews-long"
    loss = longer[2].replace("+", "").split()
    assert f"the loss is {float(loss[0]):.3f} ± {float(loss[2]):.3f} higher, at the same accuracy" in log


def test_the_sentences_about_the_rate_of_lora_have_the_figures_of_the_stored_runs():
    log = " ".join((Path(__file__).parents[3] / "docs/log.md").read_text(encoding="utf-8").split())
    rows = {row[0]: row for row in cells(start.start_untuned())}
    points = {task: [100 * float(cell.split()[0]) for cell in row[3:]] for task, row in rows.items()}
    assert len(rows) == 8 and not any(row[1].endswith("▲") for row in rows.values())
    lower = [-float(row[1].split()[0]) for row in rows.values() if row[1].endswith("▼")]
    assert len(lower) == 3 and f"by {min(lower):.3f} to {max(lower):.3f}, and significantly higher on none." in log
    ends = {row[0]: row[5:] for row in cells(untuned.untuned())}
    assert ends[untuned.ALONG.words] == ["4 of 8 tasks", "0 of 40"]
    assert ends[untuned.SAME.words] == ["5 of 8 tasks", "0 of 40"]
    assert f"the accuracy is {-points['supersenses'][0]:.1f} points below the default's" in log
    assert f"misses the bound of 0.5 points by {-points['imdb-all'][1] - 0.5:.2f}" in log
    assert f"on editorials it is {points['editorials'][0]:.1f} points above the default's" in log
