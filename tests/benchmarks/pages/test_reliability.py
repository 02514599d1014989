"""Which runs count as not learned, and what they are compared with."""

from pathlib import Path

import pytest
from benchmarks.pages import reliability
from stored import result

IN_EVIDENCE = {
    "the default": "the default",
    "LoRA on all modules at half the rate, with a warmup over a fifth of the steps instead of 6 %": (
        "LoRA on all modules, half the rate, longer warmup"
    ),
    "LoRA on all modules at half the rate": "LoRA on all modules, half the rate",
    "rank 2 on all modules": "rank 2 on all modules",
    "LoRA on all modules with the longer warmup": "LoRA on all modules, longer warmup",
    "PEFT's default list": "PEFT's default list",
    "LoRA on all modules": "LoRA on all modules",
    "random sets of the same sizes": "random sets of the default's sizes",
    "LoRA on all modules at a quarter of the rate": "LoRA on all modules, a quarter of the rate",
}
"""Words of the page of evidence -> words of the log."""


def stored(failed: dict[str, int]):
    """Runs of which the first so many have the accuracy of a guess."""
    return [
        result(label, seed, task=reliability.TASK, accuracy=0.5 if place < number else 0.75)
        for label, number in failed.items()
        for place, seed in enumerate(reliability.SEEDS)
    ]


def rows(monkeypatch, runs):
    monkeypatch.setattr(reliability, "runs_in", {"reliability": runs}.get)
    found = reliability.reliability().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found]


def test_runs_that_do_not_learn_are_counted_and_compared(monkeypatch):
    first, lora, half = rows(monkeypatch, stored({"probe": 0, "lora": 5, "lora-half-rate": 1}))
    assert [row[2] for row in (first, lora, half)] == ["0 of 15", "5 of 15", "1 of 15"]
    assert first[3] == "" and float(lora[3]) == pytest.approx(0.042, abs=0.001) and half[3] == "1"
    assert lora[5].startswith("-0.0833 ±") and lora[5].endswith("▼") and half[5].startswith("-0.0167 ±")


def test_a_method_has_a_row_when_its_runs_are_complete_and_the_defaults_are(monkeypatch):
    runs = stored({"probe": 0, "lora": 5, "lora-half-rate": 1})
    assert [row[2] for row in rows(monkeypatch, runs[:-1])] == ["0 of 15", "5 of 15"]
    assert rows(monkeypatch, runs[1:]) == []


def test_the_sentences_have_the_figures_of_the_stored_runs():
    cells = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in reliability.reliability().splitlines()[2:]
    ]
    failed = {row[0]: row[2] for row in cells}
    lora, half = (failed[f"LoRA on all modules{more}"] for more in ("", ", half the rate"))
    remedied = failed["LoRA on all modules, half the rate, longer warmup"]
    root = Path(__file__).parents[3]
    pages = ("README.md", "docs/evidence.md", "docs/choosing.md")
    readme, evidence, choosing = (" ".join((root / name).read_text(encoding="utf-8").split()) for name in pages)
    listed = failed["PEFT's default list"]
    learned, of_list = (15 - int(text.split()[0]) for text in (lora, listed))
    assert failed["the default"] == remedied == "0 of 15"
    said = {
        readme: [
            "[all 15 runs](docs/evidence.md#runs-that-do-not-learn) learned this way or with the default; at tuned "
            f"rates, {learned} of LoRA on all modules and {of_list} of PEFT's list;"
        ],
        evidence: [
            f"[{lora} runs]",
            f"Half the rate alone and rank 2 each leave {half} runs that do not learn",
            "All 15 runs of the default",
            *(f"| {words} | {failed[row].split()[0]} |" for words, row in IN_EVIDENCE.items()),
        ],
        choosing: [f"At the tuned rates, {learned} of LoRA on all modules do, and {of_list} of PEFT's default list."],
    }
    assert [sentence for page, sentences in said.items() for sentence in sentences if sentence not in page] == []
