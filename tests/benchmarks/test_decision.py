"""The rule of decision, on losses made up for each of its steps."""

from collections.abc import Mapping
from pathlib import Path

import benchmarks
import pytest
from benchmarks.decision import CANDIDATES, FIRST, SECOND, Look, decide, looks

LOOK = Look({"a": 3, "b": 3}, None)
NOISE = (0.0, 0.001, -0.001)


def losses(**means: float | Mapping[str, float]) -> dict[tuple[str, str], dict[int, float]]:
    """Label (with _ for -) -> mean loss on both tasks, or by task; 1 for LoRA and 0.9 for what is not given."""
    alike = {candidate.alike: 0.9 for candidate in CANDIDATES.values()}
    known = {"lora": 1.0, "peft-default": 0.9} | alike | dict.fromkeys(CANDIDATES, 0.5)
    known |= {label.replace("_", "-"): mean for label, mean in means.items()}
    return {
        (task, label): {
            seed: (mean if isinstance(mean, float) else mean[task]) + noise * (1 + place / 10)
            for seed, noise in enumerate(NOISE)
        }
        for task in LOOK.seeds
        for place, (label, mean) in enumerate(known.items())
    }


def test_the_smallest_mean_regret_wins_where_all_are_left():
    verdict = decide(losses(probe={"a": 0.4, "b": 0.5}, weightlora={"a": 0.5, "b": 0.42}), LOOK)
    assert verdict.winner == "probe" and not verdict.out
    assert verdict.regrets["probe"] == pytest.approx({"a": 0.0, "b": 0.08})
    assert verdict.regrets["weightlora"] == pytest.approx({"a": 0.1, "b": 0.0})
    assert verdict.mean_regret("widening") == pytest.approx(0.09)


@pytest.mark.parametrize("reference", ["peft-default", "random-like-probe"])
def test_what_is_significantly_worse_than_a_reference_on_one_task_is_out(reference):
    found = losses(probe={"a": 0.1, "b": 0.5}, **{reference: {"a": 0.9, "b": 0.45}})
    verdict = decide(found, LOOK)
    assert "probe" in verdict.out and verdict.out["probe"] == [f"worse than {reference} on b"]
    assert verdict.winner != "probe"


def test_a_difference_within_the_noise_leaves_a_candidate_in():
    found = losses(probe=0.3)
    found["a", "peft-default"] = {0: 0.2, 1: 0.4, 2: 0.25}
    assert decide(found, LOOK).winner == "probe"


def test_of_those_that_are_tied_the_cheaper_one_wins():
    verdict = decide(losses(weightlora=0.4, widening=0.4049), LOOK)
    assert verdict.winner == "widening"
    assert verdict.reason == "widening is tied with weightlora, and is the cheapest of them."
    assert decide(losses(weightlora=0.4, widening=0.4051), LOOK).winner == "weightlora"
    assert decide(losses(probe=0.4002, gora_per_block=0.4001), LOOK).winner == "gora-per-block"  # one price


def test_the_default_stays_where_nobody_is_left():
    verdict = decide(losses(peft_default=0.1), LOOK)
    assert len(verdict.out) == 4 and verdict.winner == "weightlora" and "no candidate is left" in verdict.reason


def test_who_is_alone_wins_by_nothing_and_the_reason_says_so():
    verdict = decide(losses(), Look(LOOK.seeds, None, candidates=("probe",)))
    assert verdict.winner == "probe" and verdict.reason == "probe is the only candidate that is left."


def test_a_look_may_ask_for_a_margin_over_todays_default():
    found = losses(probe=0.45, weightlora=0.46, widening=0.6, gora_per_block=0.6)
    assert decide(found, Look(LOOK.seeds, 0.009)).winner == "probe"
    verdict = decide(found, Look(LOOK.seeds, 0.011))
    assert verdict.winner == "weightlora" and verdict.reason.startswith("probe wins by 0.0100 of mean regret")


def first_look(**means: float) -> dict[tuple[str, str], dict[int, float]]:
    """Losses of all runs of the first look, alike on all tasks and seeds but for some noise."""
    known = {"lora": 1.0, "peft-default": 0.9} | {candidate.alike: 0.9 for candidate in CANDIDATES.values()}
    known |= {label.replace("_", "-"): mean for label, mean in means.items()}
    return {
        (task, label): {seed: mean + 0.001 * ((seed * place) % 5) for seed in range(5)}
        for task in FIRST.seeds
        for place, (label, mean) in enumerate(known.items(), 1)
    }


def second_look(found: dict, **means: float) -> dict:
    """The same with runs of the tasks of the second look."""
    for task in SECOND.seeds.keys() - FIRST.seeds.keys():
        for place, (label, mean) in enumerate(({"lora": 1.0, "peft-default": 0.9} | means).items()):
            label = label.replace("_", "-")
            found[task, label] = {seed: mean + 0.001 * ((seed * place) % 5) for seed in range(5)}
    return found


BEHIND = {"probe": 0.40, "weightlora": 0.45, "widening": 0.46, "gora_per_block": 0.46}


def test_who_is_far_behind_after_the_first_look_has_no_part_in_the_second():
    means = {"probe": 0.40, "weightlora": 0.415, "widening": 0.425, "gora_per_block": 0.3}
    found = second_look(first_look(**means, random_like_gora=0.2), probe=0.4, weightlora=0.5, random_like_probe=0.8)
    second = looks(found)["second"]
    assert second.candidates == ("probe", "weightlora") and second.default == "probe"


@pytest.mark.parametrize("label", ["lora", "peft-default", "weightlora", "random-like-probe"])
def test_a_look_needs_the_runs_of_all_candidates_and_the_random_sets_of_the_winner(label):
    found = first_look(**BEHIND)
    for one in ("random-like-weightlora", "random-like-gora"):
        del found["spam", one]
    assert [*looks(found)] == ["first"] and decide(found, FIRST).unchecked == ["gora-per-block", "weightlora"]
    assert [*looks(second_look(found, probe=0.4, random_like_probe=0.8))] == ["first", "second"]
    del found["spam", label][4]
    assert looks(found) == {}


def test_where_the_first_look_leaves_nobody_there_is_no_second():
    found = second_look(first_look(**dict.fromkeys(BEHIND, 0.4), peft_default=0.1), **dict.fromkeys(BEHIND, 0.4))
    assert looks(found) == {"first": FIRST}


def test_a_default_of_which_the_second_look_finds_a_flaw_stays_and_the_reason_says_so():
    found = second_look(first_look(**BEHIND), probe=0.4, peft_default=0.3)
    second = looks(found)["second"]  # PEFT's default list leaves it out: no random sets are needed
    assert second.candidates == ("probe",)
    verdict = decide(found, second)
    assert verdict.winner == "probe" and verdict.reason == "no candidate is left." and len(verdict.out["probe"]) == 5


def test_the_looks_have_the_tasks_that_the_page_of_decision_has():
    assert len(FIRST.seeds) == 5 and len(SECOND.seeds) == 10
    assert FIRST.seeds.items() <= SECOND.seeds.items()
    page = (Path(benchmarks.__file__).parent / "quality" / "DECISION.md").read_text(encoding="utf-8")
    assert all(f"`{task}`" in page for task in (*SECOND.seeds, *CANDIDATES))
