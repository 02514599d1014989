"""Loss against the number of adapters: points, and what is said."""

from benchmarks.pages.sizes import LINES, PLAIN, PLANS, SHARE, gather_sizes, render_sizes_markdown
from stored import result

TASK = "rotten-tomatoes-all"
DECODER = "smollm2-imdb-lm-float32"
SMALL, LARGE, RANDOM = LINES


def runs(small: float, large: float, random: float) -> tuple[list, list]:
    """Runs whose loss falls with the number of adapters: LoRA is at 0.5, and at 9 adapters all are there."""

    def run(label: str, seed: int, loss: float):
        return result(label, seed, loss + 0.001 * ((seed * 7 + len(label)) % 5), task=TASK, adapters_after=37)

    losses = {SMALL: small, LARGE: large, RANDOM: random}
    side = [
        run(line.format(count), seed, 0.5 + slope * max(0, 9 - count))
        for line, slope in losses.items()
        for count in PLANS[TASK].counts
        for seed in range(5)
    ]
    side += [run(SHARE, seed, 0.6) for seed in range(5)]
    return side, [run(label, seed, 0.5) for label in PLAIN for seed in range(5)]


def said(*slopes: float) -> list[str]:
    text = render_sizes_markdown(gather_sizes(*runs(*slopes)))
    return [line for line in text.splitlines() if line.startswith("- ")]


def test_the_smallest_number_that_is_level_with_lora_is_said():
    assert said(0.01, 0.0, 0.02) == [
        "- The smallest number of adapters at which the probe's set is not significantly worse than LoRA on all "
        "modules: 9 of 37 at rank 8, 1 of 37 at rank 32.",
        "- The probe's set is significantly better than random modules (rank 8) with 1, 3, 5 adapters.",
        "- Nine adapters within 9/37 of the parameters, minus nine of any size: +0.1000 ± 0.0028 ▲.",
        "- One adapter is enough at rank 32.",
    ]
    assert said(0.01, 0.01, 0.01)[1::2] == [
        "- The probe's set is significantly better than random modules (rank 8) with no number of adapters.",
        "- One adapter is not enough.",
    ]


def test_nothing_is_said_while_a_run_is_missing():
    side, main = runs(0.01, 0.0, 0.02)
    text = render_sizes_markdown(gather_sizes(side[1:], main))
    assert f"Runs are missing of {TASK}, {DECODER}." in text and "- One adapter" not in text


def test_all_points_are_in_the_table():
    text = render_sizes_markdown(gather_sizes(*runs(0.01, 0.0, 0.02)))
    assert "| adapters | 1 | 3 | 5 | 9 | 18 |" in text and "| the probe, rank 8 | +0.08" in text
    assert "a lower rank on all modules (37): " in text and f"({TASK}-sizes.png)" in text


def test_every_task_has_its_own_numbers_and_seeds():
    plan = PLANS[DECODER]

    def run(label: str, seed: int, loss: float, adapters: int):
        return result(label, seed, loss + 0.001 * seed, task=DECODER, adapters_after=adapters)

    own = [label for label in plan.labels if label not in plan.plain]
    side = [run(label, seed, 3.8, int(label.split("-")[1])) for label in own for seed in range(3)]
    main = [run(label, seed, 3.7, 210) for label in plan.plain for seed in range(3)]
    text = render_sizes_markdown(gather_sizes(side, main))
    assert plan.setting in text and "| adapters | 4 | 10 | 42 |" in text
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- The smallest number of adapters at which the probe's set is not significantly worse than LoRA on all "
        "modules: none at rank 8, none at rank 32.",
        "- The probe's set is significantly better than random modules (rank 8) with no number of adapters.",
    ]
    assert DECODER not in gather_sizes(side[1:], main)
