"""SmolLM2 at new seeds: only references with all of their runs count."""

from benchmarks.pages import decoder_seeds
from stored import NAMES, result


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
