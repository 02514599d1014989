"""A user's model and data for the side studies, and what holds for both of them."""

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
from benchmarks.__main__ import main
from benchmarks.commands import study as shared
from models import WORDS, save_classifier, sentence, tiny_bert


@pytest.fixture(scope="session")
def own(tmp_path_factory) -> list[str]:
    """Options that name a model with 13 adapters and a file of 120 texts, in batches of 4 short ones."""
    place = tmp_path_factory.mktemp("own")
    save_classifier(place / "tiny", WORDS)
    rows = (json.dumps({"text": sentence(i), "label": i % 2}) + "\n" for i in range(120))
    (place / "films.jsonl").write_text("".join(rows))
    own = ["--model", str(place / "tiny"), "--data", str(place / "films.jsonl"), "--device", "cpu"]
    return [*own, "--batch-size", "4", "--max-length", "8"]


@pytest.fixture
def check_study(own: list[str]) -> Callable[[dict, Path], None]:
    """Asserts what the study says of itself, and that its three files are all there is in the directory."""

    def check(study: dict, directory: Path) -> None:
        name = study["study"]
        assert {path.name for path in directory.iterdir()} == {f"{name}.json", f"{name}.md", f"{name}.png"}
        millions = sum(parameter.numel() for parameter in tiny_bert().parameters()) / 1e6
        assert study["model"] == f"tiny, films: BertForSequenceClassification of {millions:.3g} M parameters"
        assert study["device"] == "cpu" and study["settings"]["batch_size"] == 4
        assert study["versions"].keys() >= {"weightlora", "torch", "peft", "transformers"}
        assert study["machine"]["threads"] == 1
        assert str(Path(own[1]).parent) not in json.dumps(study)  # no path of the machine
        assert matplotlib.image.imread(directory / f"{study['study']}.png").shape[0] > 300

    return check


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str]], str]:
    """Runs a command, which must refuse in one sentence before a model loads, and returns the sentence.

    There is a file of the name `file` in the working directory, and nothing else.
    """

    def run(arguments: list[str]) -> str:
        monkeypatch.setattr(shared, "_job", lambda *arguments: pytest.fail("a model was loaded"))
        monkeypatch.chdir(tmp_path)
        Path("file").write_text("mine")
        assert main(arguments) == 2
        output, error = capsys.readouterr()
        assert output == "" and error.count("\n") == 1 and error.startswith(f"benchmarks {arguments[0]}: ")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        return error

    return run
