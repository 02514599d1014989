"""SmolLM2 at new seeds: only references with all of their runs count."""

from pathlib import Path
from statistics import fmean

from benchmarks.pages import decoder_seeds
from benchmarks.pages.runs import runs_in
from benchmarks.results import by_seed, losses
from stored import NAMES, result

from weightlora.compare.statistics import excludes_zero, jaccard, paired


def runs(label, loss, seeds=decoder_seeds.SEEDS):
    settings = {"label": label, "learning_rate": 0.002}
    return [
        result(label, seed, loss + 0.01 * seed, task=task, settings=settings, names=NAMES, kept=NAMES[:2])
        for task in decoder_seeds.TASKS
        for seed in seeds
    ]


def cells(monkeypatch, found):
    monkeypatch.setattr(decoder_seeds, "runs_in", {"decoder-seeds": found}.get)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in decoder_seeds.decoder_seeds().splitlines()]


def test_a_reference_counts_when_all_of_its_runs_are_there(monkeypatch):
    some = [*runs("probe", 0.5), *runs("random-like-probe", 0.52), *runs("lora", 0.4, decoder_seeds.SEEDS[1:])]
    head, _, *rows = cells(monkeypatch, some)
    assert head == ["task", "rate", "loss minus that of random sets of the same sizes"]
    assert [row[0] for row in rows] == [*decoder_seeds.TASKS]
    assert all(row[1] == "0.002" and row[2].startswith("-0.0200 ± 0.0000") for row in rows)

    head, _, *rows = cells(monkeypatch, [*some, *runs("lora", 0.4, decoder_seeds.SEEDS[:1])])
    assert head[3:] == ["loss minus that of LoRA on all modules", "metric minus that of LoRA on all modules"]
    assert all(row[3].startswith("+0.1000") for row in rows)


def test_the_sentences_have_the_figures_of_the_stored_runs():
    """The plan says what README and the page of evidence have to say."""
    root = Path(__file__).parents[3]
    readme, evidence, log, faq = (
        " ".join((root / name).read_text(encoding="utf-8").split())
        for name in ("README.md", "docs/evidence.md", "docs/log.md", "docs/faq.md")
    )
    runs = by_seed(runs_in("decoder-seeds"))
    pairs = {
        (task, label): paired(losses(runs[task, "probe"]), losses(runs[task, label]))
        for task in decoder_seeds.TASKS
        for label in ("random-like-probe", "peft-default", "lora")
    }
    signs = {pair: excludes_zero(found) and ("▼" if found["mean"] < 0 else "▲") for pair, found in pairs.items()}
    sentiment, language = decoder_seeds.TASKS
    assert signs[language, "random-like-probe"] == "▼" and not signs[sentiment, "random-like-probe"]
    assert "the choice is better than random sets on one of three tasks." in readme
    assert "one of three tasks, SmolLM2 in language modelling, at five new seeds." in faq
    for task in decoder_seeds.TASKS:
        cells = [
            f"{found['mean']:+.3f} ± {found['ci']:.3f}{f' {sign}' if sign else ''}"
            for label in ("random-like-probe", "peft-default", "lora")
            for found, sign in [(pairs[task, label], signs[task, label])]
        ]
        assert f"(log.md#2026-12-03-smollm2-on-new-seeds) | {cells[0]} | {cells[1]} | | {cells[2]} |" in evidence
    own = losses(runs[language, "probe"])
    for label, more in (("random-like-probe", "."), ("peft-default", ", and level on sentiment")):
        others = losses(runs[language, label])
        lower = sorted(others[seed] - own[seed] for seed in own)
        where = "" if more == "." else " in language modelling"
        assert f"at all five seeds{where}, by {lower[0]:.3f} to {lower[-1]:.3f}{more}" in log
    higher = sorted(own[seed] - loss for seed, loss in losses(runs[language, "lora"]).items())
    assert f"the loss is higher at all five seeds, by {higher[0]:.3f} to {higher[-1]:.3f}," in log
    values = [
        fmean(run.value for run in runs[task, label].values())
        for task in decoder_seeds.TASKS
        for label in ("probe", "random-like-probe", "lora")
    ]
    assert f"The perplexity is lower by {values[4] - values[3]:.2f}." in log
    assert f"and the perplexity by {values[3] - values[5]:.2f}," in log
    assert f"The accuracy is {100 * (values[1] - values[0]):.1f} points lower, not significantly." in log
    overlaps = [jaccard([run.kept for run in runs[task, "probe"].values()]) for task in decoder_seeds.TASKS]
    assert "overlap by {:.2f} on sentiment and {:.2f} in language modelling".format(*overlaps) in log
