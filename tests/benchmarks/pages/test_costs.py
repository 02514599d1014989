"""What selecting saves; `test_readme.py` compares all tables with the stored measurements."""

from benchmarks.decision import SECOND
from benchmarks.pages import costs
from benchmarks.pages.runs import losses_of

from weightlora.compare.statistics import paired


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_significant_differences_from_the_default_are_marked():
    found = rows(costs.savings())
    for task, seeds in SECOND.seeds.items():
        row = found[f"loss, {costs.NEW_TASKS[task]} ({seeds} seeds)"]
        for cell, label in zip(row, costs.COMPARED, strict=True):
            versus = paired(losses_of(task, label), losses_of(task, "probe"))
            if versus is None:
                assert label == "lora-equal" and cell == ""
                continue
            marks = {"▲": versus["mean"] > versus["ci"], "▼": -versus["mean"] > versus["ci"]}
            assert {mark: mark in cell for mark in marks} == marks, (task, label)


def test_ways_to_less_memory_are_relative_to_lora_on_all_modules(monkeypatch):
    def variant(peak, over_lora):
        return {"peak_bytes": peak, "over_lora": over_lora}

    variants = {"lora": variant(200, 1.0), "halves": variant(100, 1.1), "recomputed": variant(50, 1.3)}
    model = {"batch": [4, 64], "variants": {**variants, "after": variant(150, 0.7), "dora": variant(900, 2.0)}}
    monkeypatch.setattr(costs, "stored", {"speed": {"models": {"a": model, "Llama": model}}}.get)
    found = rows(costs.sparing())
    assert found["model"][1:] == [
        f"{what}: {way}"
        for what in ("peak", "step time")
        for way in ("half batches", "gradient checkpointing", "after the choice")
    ]
    assert found["a"] == found["Llama"] == ["4 x 64", "0.50", "0.25", "0.75", "1.10", "1.30", "0.70"]
