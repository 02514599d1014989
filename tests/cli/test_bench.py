"""The old commands, which are parts of `weightlora compare` and of the repository's benchmarks now."""

from pathlib import Path

import pytest

from weightlora.cli import bench, main
from weightlora.errors import ConfigError


def test_old_options_are_translated():
    old = ["--model", "m", "--data", "d/films.jsonl", "--text-column", "said", "--steps=50", "--rank", "4"]
    old += ["--methods", "lora", "--seeds", "2", "--jobs", "1", "--learning-rate", "2e-3", "--root", "r"]
    new = bench.translate(old)
    pairs = dict(zip(new[::2], new[1::2], strict=True))
    assert pairs == {
        "--model": "m",
        "--train_file": "d/films.jsonl",
        "--task": "text-classification",
        "--columns": '{"text": "said", "label": "label"}',
        "--max_steps": "50",
        "--per_device_train_batch_size": "16",
        "--max_length": "128",
        "--learning_rates": "2e-3",
        "--rank": "4",
        "--alpha": "16",
        "--keep": "0.25",
        "--methods": "lora",
        "--seeds": "2",
        "--jobs": "1",
        "--select_steps": "10",
        "--warmup_steps": "3",
        "--output_dir": "r/films",
    }
    with pytest.raises(ConfigError, match="--data is given without --model"):
        bench.translate(["--data", "films.jsonl"])
    with pytest.raises(ConfigError, match="is now `weightlora compare`: unrecognized arguments: --stepz"):
        bench.translate(["--model", "m", "--data", "d", "--stepz", "3"])


def test_the_old_command_forwards(place, tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr("weightlora.cli.compare._compare", lambda args: seen.append(args) or 0)
    arguments = ["--model", str(place / "deberta"), "--data", str(place / "films.jsonl"), "--root", str(tmp_path)]
    assert main(["bench", "run", *arguments, "--methods", "lora"]) == 0
    (args,) = seen
    assert (args.methods, args.seeds, args.output_dir) == (["lora"], 3, tmp_path / "films")
    assert args.rest[:2] == ["--model", str(place / "deberta")]
    assert capsys.readouterr().err.startswith("weightlora bench run is now `weightlora compare`; this runs `")


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["bench", "run"], "python -m benchmarks run"),
        (["bench", "tune", "--grid", "1e-3"], "python -m benchmarks tune"),
        (["bench", "summarize", "--json"], "python -m benchmarks summarize"),
        (["study", "memory", "--ranks", "8"], "python -m benchmarks memory"),
        (["study", "alignment"], "python -m benchmarks alignment"),
    ],
)
def test_the_experiments_of_the_repository_have_moved(capsys, arguments, command):
    assert main(arguments) == 2
    printed, said = capsys.readouterr()
    assert printed == "" and said.count("\n") == 1 and f"`{command}`" in said


@pytest.mark.parametrize("name", ["...jsonl", ".jsonl", "..jsonl", "a/...jsonl"])
def test_a_data_file_of_dots_does_not_lead_out_of_the_root(name):
    try:
        place = bench.translate(["--model", "m", "--data", name, "--root", "runs"])[-1]
    except ConfigError as error:
        assert "has no name before its ending" in str(error)
    else:
        assert Path(place) == Path("runs") / Path(name).stem.lstrip(".") != Path("runs")
