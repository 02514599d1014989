"""The replication: counts and figures of the stored runs, and the sentences about them."""

from pathlib import Path

import pytest
from benchmarks.pages import replication
from benchmarks.pages.runs import runs_in
from benchmarks.pages.tuned import SEEDS
from benchmarks.pages.untuned import SAME, WAYS, failures, runs_of
from benchmarks.pages.winner import CLOSE, references_of, weigh
from benchmarks.results import by_seed
from stored import NAMES, result

from weightlora.compare.statistics import excludes_zero

TASKS = ("first", "second")


def runs(label, rate, *gaps, tasks=TASKS):
    """Runs whose losses are 0.5 at the first seed and more at later ones, plus a gap at each seed."""
    return [
        result(
            label,
            seed,
            0.5 + 0.01 * place + gaps[place % len(gaps)],
            task=task,
            accuracy=0.8 - gaps[0],
            settings={"label": label, "learning_rate": rate},
            names=NAMES,
            kept=NAMES[:2],
        )
        for task in tasks
        for place, seed in enumerate(replication.SEEDS)
    ]


@pytest.fixture
def stored(monkeypatch):
    found = [*runs("probe", 0.001, 0.0), *runs("peft-default", 0.002, 0.05, 0.06), *runs("lora", 0.001, 0.0)]
    monkeypatch.setattr(replication, "TASKS", TASKS)
    monkeypatch.setattr(replication, "runs_in", {"replication": found, "proportional": []}.get)


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def test_each_reference_has_its_counts(stored):
    peft = ["PEFT's default list", "better on 2 of 2 tasks, worse on 0", "better on 2, worse on 0"]
    lora = ["LoRA on all modules", "better on 0 of 2 tasks, worse on 0", "better on 0, worse on 0"]
    assert cells(replication.replication()) == [
        [*peft, "+5.0 points", "2 of 2 tasks"],
        [*lora, "+0.0 points", "2 of 2 tasks"],
    ]
    (first, _) = cells(replication.replication_by_task())
    assert first[:2] == ["first", "0.001"] and first[2].startswith("-0.0540 ± ") and first[-1].startswith("+0.0000")


def test_the_sentences_have_the_figures_of_the_stored_runs():
    """Log, evidence, advice and README say which bars of the plan hold."""
    root = Path(__file__).parents[3]
    log, evidence, choosing, faq, readme = (
        " ".join((root / name).read_text(encoding="utf-8").split())
        for name in ("docs/log.md", "docs/evidence.md", "docs/choosing.md", "docs/faq.md", "README.md")
    )
    by_words = replication.weigh_replication().versus
    chance, peft, lower, lora = (row[1:] for row in cells(replication.replication()))
    assert chance[:2] == ["better on 4 of 8 tasks, worse on 0", "better on 2, worse on 0"]
    assert peft[:2] == ["better on 3 of 8 tasks, worse on 0", "better on 1, worse on 0"]
    assert lora == ["better on 0 of 8 tasks, worse on 5", "better on 0, worse on 1", "+0.0 points", "5 of 8 tasks"]
    assert "- significantly lower than with **random sets** on four tasks, and higher on none;" in evidence
    assert (
        "lower than with **PEFT's default list** on three, and higher on none; - lower than with **a lower rank on "
        "all modules**, run later at its tuned rates, on one (supersenses), and higher on one (tweets); - lower than "
        "with **LoRA on all modules** on none, and higher on five." in evidence
    )
    there = {
        task: one["mean"] < 0 for task, one in by_words["a lower rank on all modules"].items() if excludes_zero(one)
    }
    assert there == {"supersenses": True, "vader-tweets-all": False}
    assert lower[:2] == ["better on 1 of 8 tasks, worse on 1", "better on 1, worse on 0"]
    assert "it is again lower on one and higher on one." in faq
    assert (
        "lower than with random sets on four tasks, lower than with PEFT's list on three, and higher on none."
        in choosing
        and "but the loss is higher on five." in choosing
    )
    assert (
        "the default has LoRA's rate." in readme
        and "LoRA's rate for the default on [new" in faq
        and "lower on three of eight, higher on none." in faq
    )
    worth = replication.weigh_replication()
    higher = [one["mean"] for one in worth.versus["LoRA on all modules"].values() if excludes_zero(one)]
    assert len(higher) == 5 and f"by {min(higher):.3f} to {max(higher):.3f}, and after Holm's" in log
    missing = {task: f"{-found:.1f}" for task, found in worth.points.items() if found < -CLOSE}
    assert missing == {"editorials": "1.2", "imdb-all": "1.5", "rotten-tomatoes-all": "0.8"}
    assert "higher there by 1.2 points, on IMDb by 1.5 and on Rotten Tomatoes by 0.8." in log
    runs = by_seed(runs_in("replication"))
    own, others = (
        [run for task in replication.TASKS for _, run in sorted(runs[task, label].items())]
        for label in ("probe", "random-like-probe")
    )
    lower = sum(one.held_out_loss < other.held_out_loss for one, other in zip(own, others, strict=True))
    assert f"the lower loss at {lower} of 40 seeds" in log and f"four of eight tasks, {lower} of 40 seeds." in faq
    failed = [
        failures(run for task in replication.TASKS for run in runs[task, label].values())
        for label in ("random-like-probe", "peft-default", "lora", "probe")
    ]
    assert failed == [6, 3, 1, 0] and "Six of their 40 runs do not learn, three of PEFT's list, one of LoRA" in log
    assert len({run.kept and frozenset(run.kept) for run in own}) == 1 and "All 40 runs of the default keep" in log


def test_what_older_seeds_gave_is_in_the_stored_runs():
    """The default at LoRA's rate, and the references at rates of their own."""
    same, tuned = runs_of(SAME), runs_of(WAYS[0])
    both = {(task, label): (same if label == "probe" else tuned)[task, label] for task, label in [*same, *tuned]}
    for task in replication.TASKS:
        both.setdefault((task, references_of("probe")["a lower rank on all modules"]), {})
    worth = weigh(both, "probe", dict.fromkeys(replication.TASKS, SEEDS))
    counts = ["better on 5 of 8 tasks, worse on 0", "better on 4 of 8 tasks, worse on 0"]
    assert [*worth.against.values()] == [*counts, "better on 0 of 8 tasks, worse on 3"]
    assert worth.close == "5 of 8 tasks"
    docs = Path(__file__).parents[3] / "docs"
    log, evidence = (
        " ".join((docs / f"{name}.md").read_text(encoding="utf-8").split()) for name in ("log", "evidence")
    )
    for goal in (
        "loss significantly lower than with random sets, and higher on no task | at least 5 tasks | 4 | 5",
        "loss significantly lower than with PEFT's list, and higher on no task | at least 3 tasks | 3 | 4",
        "metric at most 0.5 points lower than with LoRA on all modules | 7 of 8 tasks | 5 | 5",
    ):
        assert f"| {goal} |" in evidence
    assert "On them, the loss is higher than LoRA's on three tasks." in evidence
    assert "five tasks against random sets, four against PEFT's list, and higher losses than LoRA's on three." in log
