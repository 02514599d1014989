"""The rule of decision, on losses made up for each of its steps."""

from collections.abc import Mapping
from pathlib import Path

import benchmarks
import pytest
from benchmarks.decision import CANDIDATES, FIRST, SECOND, Look, complete, decide, looks, missing
from hypothesis import given
from hypothesis import strategies as st

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


def test_what_is_missing_is_named_run_by_run():
    found = losses()
    assert not missing(found, LOOK)
    del found["a", "peft-default"], found["b", "lora"][1]
    assert missing(found, LOOK) == {("a", "peft-default"): [0, 1, 2], ("b", "lora"): [1]}


def without_random_sets(found: dict, *names: str) -> dict:
    alike = [CANDIDATES[name].alike for name in names]
    return {key: values for key, values in found.items() if key[1] not in alike}


def test_the_random_sets_of_the_likely_winner_come_first_and_others_only_if_it_is_out():
    means = {"probe": 0.40, "weightlora": 0.42, "widening": 0.45, "gora_per_block": 0.47}
    nothing = without_random_sets(losses(**means), *CANDIDATES)
    seeds = [0, 1, 2]
    assert missing(nothing, LOOK) == {("a", "random-like-probe"): seeds, ("b", "random-like-probe"): seeds}
    in_ = without_random_sets(losses(**means), "weightlora", "widening", "gora-per-block")
    assert not missing(in_, LOOK)
    verdict = decide(in_, LOOK)
    assert verdict.winner == "probe" and verdict.unchecked == ["widening", "gora-per-block", "weightlora"]
    out = without_random_sets(losses(**means, random_like_probe=0.3), "weightlora", "widening", "gora-per-block")
    assert missing(out, LOOK) == {(task, "random-like-weightlora"): seeds for task in LOOK.seeds}


def test_the_random_sets_of_a_cheaper_one_that_is_tied_are_asked_for():
    found = without_random_sets(losses(weightlora=0.4, widening=0.403), "widening", "probe", "gora-per-block")
    assert {label for _, label in missing(found, LOOK)} == {"random-like-widening"}


def test_one_that_peft_default_leaves_out_needs_no_random_sets():
    found = losses(probe={"a": 0.1, "b": 0.5}, peft_default={"a": 0.9, "b": 0.45}, weightlora=0.3, widening=0.4)
    found = without_random_sets(found, "probe", "widening", "gora-per-block")
    assert not missing(found, LOOK) and decide(found, LOOK).winner == "weightlora"


@given(st.data())
def test_random_sets_that_are_not_asked_for_never_change_the_winner(data):
    """Whatever the losses are: asking for one candidate's random sets after another ends where all of them end."""
    mean = st.floats(0.40, 0.44) | st.sampled_from([0.40, 0.403, 0.41])
    labels = [*CANDIDATES, *(candidate.alike for candidate in CANDIDATES.values()), "peft-default"]
    whole = losses(**{label.replace("-", "_"): data.draw(mean) for label in labels})
    look = Look(LOOK.seeds, data.draw(st.sampled_from([None, 0.01])))
    found = without_random_sets(whole, *CANDIDATES)
    while asked := missing(found, look):
        found |= {key: whole[key] for key in asked}
    assert decide(found, look).winner == decide(whole, look).winner


def first_look(**means: float) -> dict[tuple[str, str], dict[int, float]]:
    """Losses of all runs of the first look, alike on all tasks and seeds but for some noise."""
    known = {"lora": 1.0, "peft-default": 0.9} | {candidate.alike: 0.9 for candidate in CANDIDATES.values()}
    known |= {label.replace("_", "-"): mean for label, mean in means.items()}
    return {
        (task, label): {seed: mean + 0.001 * ((seed * place) % 5) for seed in range(5)}
        for task in FIRST.seeds
        for place, (label, mean) in enumerate(known.items(), 1)
    }


def test_who_is_far_behind_after_the_first_look_has_no_part_in_the_second():
    means = {"probe": 0.40, "weightlora": 0.415, "widening": 0.425, "gora_per_block": 0.3}
    found = first_look(**means, random_like_gora=0.2)
    second = looks(found)["second"]
    assert second.candidates == ("probe", "weightlora") and second.default == "probe"
    assert {label for _, label in missing(found, second)} == {"lora", "peft-default", "probe", "weightlora"}


def test_before_the_first_look_is_complete_the_second_has_them_all():
    found = first_look(probe=0.40, weightlora=0.45, widening=0.46, gora_per_block=0.46)
    del found["spam", "random-like-probe"][4]
    assert looks(found) == {"first": FIRST, "second": SECOND}


def test_where_the_first_look_leaves_nobody_there_is_no_second():
    assert looks(first_look(probe=0.4, weightlora=0.4, widening=0.4, gora_per_block=0.4, peft_default=0.1)) == {
        "first": FIRST
    }


def test_a_default_of_which_the_second_look_finds_a_flaw_stays_and_the_reason_says_so():
    found = first_look(probe=0.40, weightlora=0.45, widening=0.46, gora_per_block=0.46)
    second = looks(found)["second"]
    assert second.candidates == ("probe",)
    for task in SECOND.seeds.keys() - FIRST.seeds.keys():
        for place, (label, mean) in enumerate({"lora": 1.0, "peft-default": 0.3, "probe": 0.4}.items()):
            found[task, label] = {seed: mean + 0.001 * ((seed * place) % 5) for seed in range(5)}
    assert not missing(found, second)  # PEFT's default list leaves it out: no random sets are needed
    verdict = decide(found, second)
    assert verdict.winner == "probe" and verdict.reason == "no candidate is left." and len(verdict.out["probe"]) == 5


def test_the_looks_have_the_tasks_that_the_page_of_decision_has():
    assert len(FIRST.seeds) == 5 and len(SECOND.seeds) == 10
    assert FIRST.seeds.items() <= SECOND.seeds.items()
    page = (Path(benchmarks.__file__).parent / "quality" / "DECISION.md").read_text(encoding="utf-8")
    assert all(f"`{task}`" in page for task in (*SECOND.seeds, *CANDIDATES))


def test_a_task_is_complete_with_all_runs_of_the_candidate_and_of_its_references():
    labels = ("probe", "random-like-probe", "peft-default", "lora")
    found = {(task, label): dict.fromkeys(range(5), 0.5) for task in ("spam", "imdb-all") for label in labels}
    found |= {("smollm2-sentiment-float32", label): dict.fromkeys(range(3), 0.5) for label in labels}
    assert complete(found, "probe").seeds == {"spam": 5, "imdb-all": 5, "smollm2-sentiment-float32": 3}
    for label in labels:
        assert list(complete({**found, ("spam", label): {0: 0.5}}, "probe").seeds) == [
            "imdb-all",
            "smollm2-sentiment-float32",
        ]
    assert not complete(found, "widening").seeds
