import io
from types import SimpleNamespace

from rich.console import Console

from weightlora.cli.summary import ROWS, show


def test_the_summary_says_that_step_times_were_disturbed():
    column = dict.fromkeys(ROWS, 1) | {"test_loss": None, "test_accuracy": None}
    figures = {"columns": {"selecting": column, "after": dict.fromkeys(ROWS, 1)}, "test_sentences": 5}
    outputs = []
    for busy in (False, True):
        result = SimpleNamespace(evidence=figures | {"busy": busy}, kept=[])
        show(console := Console(file=io.StringIO(), width=80), result, "runs/x")
        outputs.append(console.file.getvalue())
    assert ["Other programs" in output for output in outputs] == [False, True]
    assert all("LoRA on all" not in output for output in outputs)  # there is no such column to name
