import io
from types import SimpleNamespace

from rich.console import Console

from weightlora.cli.progress import Choice, TrainingProgress


def shown(console: Console, phases: list[tuple[str, int]], to_choice: int = 0) -> None:
    """Shows a run of one step for each of the phases, which are those at the step's end."""
    selector = SimpleNamespace(config=SimpleNamespace(steps=to_choice))
    selector.phase, selector.kept = phases[0][0], range(phases[0][1])
    selection = SimpleNamespace(selector=selector)
    callback = TrainingProgress(console, "WeightLoRA", selection, to_choice=bool(to_choice))
    state = SimpleNamespace(max_steps=len(phases), global_step=0)
    callback.on_train_begin(None, state, None)
    for state.global_step, (selector.phase, kept) in enumerate(phases, start=1):
        selector.kept = range(kept)
        callback.on_step_end(None, state, None)
    callback.on_train_end(None, state, None)


def test_lines_come_at_quarters_and_at_the_choice():
    out = io.StringIO()
    shown(Console(file=out, width=80), [("select", 36)] * 4 + [("train", 9)] * 8)
    assert [line.split(", ")[:2] for line in out.getvalue().splitlines()] == [
        ["WeightLoRA: step 3/12", "selecting 36 adapters"],
        ["WeightLoRA: step 5/12", "training 9 adapters"],
        ["WeightLoRA: step 6/12", "training 9 adapters"],
        ["WeightLoRA: step 9/12", "training 9 adapters"],
        ["WeightLoRA: step 12/12", "training 9 adapters"],
    ]


def test_a_run_to_its_choice_ends_there():
    out = io.StringIO()
    shown(Console(file=out, width=80), [("warmup", 36), ("select", 36), ("select", 36), ("train", 9)], to_choice=4)
    assert [line.split(", ")[:2] for line in out.getvalue().splitlines()] == [
        ["WeightLoRA: step 1/4", "warming up 36 adapters"],
        ["WeightLoRA: step 2/4", "selecting 36 adapters"],
        ["WeightLoRA: step 3/4", "selecting 36 adapters"],
        ["WeightLoRA: step 4/4", "chose 9 adapters"],
    ]


def test_the_bar_shows_step_phase_and_adapters():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    shown(console, [("select", 36)] * 2 + [("train", 9)] * 3)
    assert all(piece in out.getvalue() for piece in ("WeightLoRA", "5/5", "training 9 adapters", "left"))


def test_the_choice_is_said_once_by_the_first_process():
    for first, phases, begin, expected in (
        (True, ["select", "train", "train"], 0, 1),
        (True, ["train", "train"], 0, 1),  # chosen before the first step
        (True, ["train", "train"], 7, 0),  # resumed after the choice
        (True, ["select", "train"], 7, 1),  # resumed before it
        (False, ["select", "train"], 0, 0),
        (True, ["select", "select"], 0, 0),
    ):
        summary = SimpleNamespace(text="WeightLoRA kept [3].")
        selector = SimpleNamespace(phase=None, summary=lambda summary=summary: summary)
        callback = Choice(Console(file=(out := io.StringIO())), SimpleNamespace(selector=selector))
        state = SimpleNamespace(global_step=begin, is_world_process_zero=first)
        selector.phase = phases[0]
        callback.on_train_begin(None, state, None)
        for selector.phase in phases[1:]:
            state.global_step += 1
            callback.on_step_end(None, state, None)
        callback.on_train_end(None, state, None)
        assert out.getvalue() == "WeightLoRA kept [3].\n" * expected, (first, phases, begin)
