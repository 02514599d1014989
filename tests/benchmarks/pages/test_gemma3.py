"""Gemma 3: the methods that are complete, and what the probe kept."""

import pytest
from benchmarks.pages.gemma3 import SEEDS, TASK, probes_of, render_gemma3_markdown
from stored import result

LOSSES = {"probe": 3.4, "random-like-probe": 3.5, "peft-default": 3.6, "lora-equal": 3.45, "lora": 3.3}
NAMES = [f"model.layers.{layer}.{kind}" for layer in range(2) for kind in ("mlp.up_proj", "self_attn.q_proj")]


def stored(seeds=SEEDS, labels=tuple(LOSSES)) -> list:
    return [
        result(
            label,
            seed,
            LOSSES[label] + 0.001 * ((seed + len(label)) % 5),
            task=TASK,
            settings={"learning_rate": 0.002},
            names=NAMES,
            kept=[NAMES[0], NAMES[1 + seed % 3]],
        )
        for label in labels
        for seed in seeds
    ]


def test_the_probe_is_compared_with_each_method_and_its_choice_is_shown():
    lines = render_gemma3_markdown(stored()).splitlines()
    (row,) = (line for line in lines if line.startswith("| gemma3-definitions | -0"))
    differences = [float(cell.split(" ")[0]) for cell in row.split(" | ")[1:5]]
    assert differences == pytest.approx([-0.1, -0.2, -0.05, 0.1], abs=0.005)
    assert "| gemma3-definitions | PEFT's default list | 0.002 | 3.6" in "\n".join(lines)
    shares = [line.split(" | ") for line in lines if "%" in line][1:]
    assert [row[1:] for row in shares] == [["67%", "100%", "33%", " |"], ["33%", "33%", "33%", " |"]]


def test_a_method_without_all_seeds_is_named_and_left_out():
    text = render_gemma3_markdown(stored(labels=("probe", "random-like-probe", "peft-default", "lora")))
    assert "Runs are missing of lora-equal." in text and "lower rank" not in text and "What the probe keeps" in text
    assert "|" not in render_gemma3_markdown(stored(range(2)))


def test_only_the_planned_seeds_count():
    assert render_gemma3_markdown([*stored(), *stored(range(3, 9), ["lora"])]) == render_gemma3_markdown(stored())


def test_a_picture_needs_the_probe_at_all_seeds():
    assert probes_of(stored(range(2))) == []
    assert [run.seed for run in probes_of(stored())] == [*SEEDS]
