"""The page on which rule is the default."""

from types import SimpleNamespace

from benchmarks.decision import CANDIDATES, LOOKS
from benchmarks.pages.decision import render_decision_markdown

LABELS = {"lora": 1.0, "peft-default": 0.9, **dict.fromkeys(CANDIDATES, 0.5), "probe": 0.4}
LABELS |= {candidate.alike: 0.8 for candidate in CANDIDATES.values()}


def stored() -> list[SimpleNamespace]:
    """All runs of the first look."""
    return [
        SimpleNamespace(task=task, label=label, seed=seed, held_out_loss=loss + 0.001 * ((seed * place) % 5))
        for task, count in LOOKS["first"].seeds.items()
        for place, (label, loss) in enumerate(LABELS.items(), 1)
        for seed in range(count)
    ]


def test_the_first_look_is_decided_and_the_second_says_what_is_missing():
    first, second = render_decision_markdown(stored()).split("## The second look")
    assert "**probe** becomes the default: probe has the smallest mean regret" in first
    assert "| probe | 0.0000 | 0.0000 | 0.0000 | 0.0000 | 0.0000 | 0.0000 |" in first
    assert first.count("| weightlora | peft-default |") == 1 and "▼" in first
    assert "Nothing is decided yet: 210 runs are missing (imdb-all 50, film-reviews-long 50" in second


def test_one_missing_run_leaves_the_first_look_open():
    assert "1 run is missing (supersenses 1)" in render_decision_markdown(stored()[:-1]).split("## The second")[0]


def test_without_a_candidates_runs_there_is_no_page():
    assert render_decision_markdown([run for run in stored() if run.label in ("lora", "weightlora")]) == ""
