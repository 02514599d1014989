"""The side studies' commands: complete files, nothing overwritten unasked, bad input in one sentence."""

import json
from pathlib import Path

import matplotlib.image
import pytest
from benchmarks.__main__ import main
from benchmarks.commands import study as shared
from benchmarks.studies.alignment import render_alignment_markdown
from benchmarks.studies.memory import render_memory_markdown
from models import save_classifier, tiny_bert

WORDS = ["good", "bad", "fine", "awful", "film", "plot", "actor", "scene", "end", "song"]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> list[str]:
    """Options that name a model with 13 adapters and a data file."""
    place = tmp_path_factory.mktemp("own")
    save_classifier(place / "tiny", WORDS)
    texts = [f"{WORDS[i % 4]} {WORDS[4 + i // 4 % 6]} {WORDS[4 + i // 24]}" for i in range(120)]
    rows = (json.dumps({"text": text, "label": i % 2}) + "\n" for i, text in enumerate(texts))
    (place / "films.jsonl").write_text("".join(rows))
    return ["--model", str(place / "tiny"), "--data", str(place / "films.jsonl"), "--device", "cpu"]


SMALL = ["--batch-size", "4", "--max-length", "8"]


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def check_study(study: dict, directory: Path, own: list[str]) -> None:
    millions = sum(parameter.numel() for parameter in tiny_bert().parameters()) / 1e6
    assert study["model"] == f"tiny, films: BertForSequenceClassification of {millions:.3g} M parameters"
    assert study["device"] == "cpu" and study["settings"]["batch_size"] == 4
    assert study["versions"].keys() >= {"weightlora", "torch", "peft", "transformers"}
    assert study["machine"]["threads"] == 1
    assert str(Path(own[1]).parent) not in json.dumps(study)  # no path of the machine
    assert matplotlib.image.imread(directory / f"{study['study']}.png").shape[0] > 300


def test_memory_is_measured_written_and_printed(tmp_path, own, capsys):
    directory = tmp_path / "new" / "memory"
    arguments = [
        "memory",
        *own,
        *SMALL,
        "--counts",
        "0,2,13",
        "--ranks",
        "4,1",
        "--output-dir",
        str(directory),
    ]
    assert main(arguments) == 0
    output, error = capsys.readouterr()
    assert error == ""
    assert files(directory) == {"memory.json", "memory.md", "memory.png"}
    study = json.loads((directory / "memory.json").read_text())
    check_study(study, directory, own)
    found = [(case["adapters"], case["rank"], case["orders"]) for case in study["cases"]]
    both = ["top", "bottom"]
    assert found == [
        *((count, rank, order) for count, order in ((0, both), (2, ["top"]), (13, both)) for rank in (1, 4)),
        *((2, rank, ["bottom"]) for rank in (1, 4)),
    ]
    page = (directory / "memory.md").read_text()
    assert page == render_memory_markdown(study)
    assert output == f"{page}\nIn {directory}: memory.json, memory.md, memory.png\n"

    (directory / "memory.png").write_text("mine")
    (directory / "memory.json").unlink()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error == (
        f"benchmarks memory: {directory}/memory.md exists already: give another --output_dir, or --overwrite.\n"
    )
    assert (directory / "memory.png").read_text() == "mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert json.loads((directory / "memory.json").read_text()) == study


def test_alignment_is_measured_here_and_against_an_earlier_run(tmp_path, own, capsys):
    arguments = ["alignment", *own, *SMALL, "--select-steps", "3", "--batches", "2", "--rank", "2"]
    with pytest.warns(UserWarning, match="the adapters are chosen on the evidence of 3 steps"):
        assert main([*arguments, "--output-dir", str(tmp_path / "a"), "--keep", "4"]) == 0
    output, error = capsys.readouterr()
    assert error == "" and files(tmp_path / "a") == {"alignment.json", "alignment.md", "alignment.png"}
    study = json.loads((tmp_path / "a" / "alignment.json").read_text())
    check_study(study, tmp_path / "a", own)
    assert len(study["adapters"]) == 13 and sum(adapter["kept"] for adapter in study["adapters"]) == 4
    assert study["chosen_by"] == "update credit" and study["settings"]["keep"] == 4
    page = (tmp_path / "a" / "alignment.md").read_text()
    assert page == render_alignment_markdown(study) and output.startswith(page)

    first = study["adapters"][0]["name"]
    adapters = [{**adapter, "kept": adapter["name"] == first} for adapter in study["adapters"]]
    (tmp_path / "run").mkdir()
    selection = {"config": {"selection": "stoiht"}, "adapters": adapters}
    (tmp_path / "run" / "selection.json").write_text(json.dumps(selection))
    assert main([*arguments, "--output-dir", str(tmp_path / "b"), "--run", str(tmp_path / "run")]) == 0
    other = json.loads((tmp_path / "b" / "alignment.json").read_text())
    assert other["chosen_by"] == "gate in an earlier run"
    assert [adapter["name"] for adapter in other["adapters"] if adapter["kept"]] == [first]
    assert [a["trace"] for a in other["adapters"]] == [a["trace"] for a in study["adapters"]]

    assert main([*arguments, "--output-dir", str(tmp_path / "c"), "--keep", "14"]) == 2
    assert "keep=14 is more than the model's 13 LoRA adapters" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["memory", "--counts", "1,x"], "argument --counts: invalid list of whole numbers value: '1,x'"),
        (["memory", "--counts", "-1"], "argument --counts"),
        (["memory", "--ranks", "0,8"], "argument --ranks: '0,8' is not a list of whole numbers of at least 1"),
        (["memory", "--orders", "middle"], "argument --orders: 'middle' is not a list of top and bottom"),
        (["memory", "--batch-size", "0"], "argument --batch_size/--batch-size: 0 is not at least 1"),
        (["alignment", "--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
    ],
)
def test_arguments_that_do_not_parse_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    output, error = capsys.readouterr()
    assert stop.value.code == 2 and output == "" and error.count("\n") == 1
    assert message in error and error.startswith("benchmarks ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["memory", "--model", "m"], "--model m needs --data: give both, or a --task."),
        (["alignment", "--data", "d.jsonl"], "--data d.jsonl needs --model: give both, or a --task."),
        (["memory", "--seed", "-1"], "--seed -1 is out of range"),
        (["alignment", "--batches", "1"], "--batches 1 is too small: give at least 2."),
        (["alignment", "--select-steps", "1"], "--select_steps 1 is too small: give at least 2."),
        (["alignment", "--learning-rate", "inf"], "--learning_rate inf is not positive and finite"),
        (["alignment", "--keep", "1.5"], "keep=1.5 is not a fraction"),
        (["alignment", "--run", "nowhere"], "cannot read a selection from nowhere/selection.json"),
        (["memory", "--output-dir", "file"], "file is a file: give a directory."),
        (["memory", "--output-dir", "file/below"], "file is not a directory that you may write to"),
    ],
)
def test_bad_settings_are_refused_before_a_model_loads(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(shared, "_job", lambda *arguments: pytest.fail("a model was loaded"))
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    assert main(arguments) == 2
    output, error = capsys.readouterr()
    assert output == "" and error.count("\n") == 1
    assert message in error and error.startswith(f"benchmarks {arguments[0]}: ")
    assert files(tmp_path) == {"file"}


def test_what_the_model_and_data_do_not_allow_is_one_sentence(tmp_path, capsys, own):
    where = ["--output-dir", str(tmp_path / "out")]
    for arguments, message in (
        (
            [*own, *SMALL, "--counts", "14"],
            "a count of 14 is more than the model's 13 LoRA adapters: give 13 or fewer.",
        ),
        (
            [*own, "--batch-size", "500", "--max-length", "8"],
            "--batch_size 500 is more than the 120 rows for training.",
        ),
        (["--task", "mnli"], "task 'mnli' is unknown: choose one of rotten-tomatoes, "),
        ([*own[:3], "missing.jsonl"], "missing.jsonl"),
    ):
        assert main(["memory", *where, *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
