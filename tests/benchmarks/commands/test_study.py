"""The side studies' commands: complete files, nothing overwritten unasked, bad input in one sentence."""

import pytest
from benchmarks.__main__ import main


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
        (["memory", "--output-dir", "file"], "file is a file: give a directory."),
        (["memory", "--output-dir", "file/below"], "file is not a directory that you may write to"),
    ],
)
def test_bad_settings_are_refused_before_a_model_loads(refused, arguments, message):
    assert message in refused(arguments)


def test_what_the_model_and_data_do_not_allow_is_one_sentence(tmp_path, capsys, own):
    where = ["--output-dir", str(tmp_path / "out")]
    for arguments, message in (
        (
            [*own, "--counts", "14"],
            "a count of 14 is more than the model's 13 LoRA adapters: give 13 or fewer.",
        ),
        (
            [*own, "--batch-size", "500"],
            "--batch_size 500 is more than the 120 rows for training.",
        ),
        (["--task", "mnli"], "task 'mnli' is unknown: choose one of rotten-tomatoes, "),
        ([*own[:3], "missing.jsonl"], "missing.jsonl"),
    ):
        assert main(["memory", *where, *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
