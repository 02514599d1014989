import io
from types import SimpleNamespace

from rich.console import Console

from weightlora.cli.summary import ROWS, show


def test_the_summary_says_that_step_times_were_disturbed():
    column = dict.fromkeys(ROWS, 1) | {"test_loss": None, "test_accuracy": None}
    figures = {"columns": {"all": column, "kept": dict.fromkeys(ROWS, 1)}, "test_sentences": 5}
    outputs = []
    for busy in (False, True):
        result = SimpleNamespace(evidence=figures | {"busy": busy}, kept=[])
        show(console := Console(file=io.StringIO(), width=80), result, "runs/x")
        outputs.append(console.file.getvalue())
    assert ["Other programs" in output for output in outputs] == [False, True]
    assert all("LoRA on all" not in output for output in outputs)  # there is no such column to name


def test_the_summary_says_where_the_backward_pass_ends():
    column = dict.fromkeys(ROWS, 1)
    figures = {"columns": {"all": column, "kept": column}, "test_sentences": 5, "busy": False}
    said = []
    for kept in (["h.4.value", "h.12.value", "pooler"], ["pooler"]):
        console = Console(file=io.StringIO(), width=200)
        show(console, SimpleNamespace(evidence=figures, kept=kept), "runs/x")
        said.append(console.file.getvalue())
    assert "lowest kept adapter, in layer 4:" in said[0] and "lowest kept" not in said[1]


def test_the_command_at_the_end_can_be_pasted():
    column = dict.fromkeys(ROWS, 1)
    figures = {"columns": {"all": column, "kept": column}, "test_sentences": 5, "busy": False}
    console = Console(file=io.StringIO(), width=80)
    show(console, SimpleNamespace(evidence=figures, kept=[]), "my runs/x")
    assert "weightlora show 'my runs/x' --output page.html\n" in console.file.getvalue()
