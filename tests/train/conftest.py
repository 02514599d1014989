from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import caches as caches  # for every test of this directory
from recipes import save_model, write_glue, write_squad, write_summaries

from weightlora.cli import main


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets and models on disk: glue/, squad/, squad_v2/, xsum/, cnn_dailymail/, deberta/, bart/, llama/."""
    root = tmp_path_factory.mktemp("world")
    write_glue(root / "glue")
    write_squad(root / "squad")
    write_squad(root / "squad_v2", v2=True)
    write_summaries(root / "xsum", "document", "summary")
    write_summaries(root / "cnn_dailymail", "article", "highlights")
    for kind in ("deberta", "bart", "llama"):
        save_model(kind, root / kind)
    return root


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""
    monkeypatch.setattr("weightlora.train.fitting.load_model", lambda *args: pytest.fail("the model was loaded"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file to write rows to."""
    return tmp_path / "rows.jsonl"


@pytest.fixture
def refused(no_weights: None, capsys: pytest.CaptureFixture, tmp_path: Path) -> Callable[..., str]:
    """Runs `weightlora train`, which must refuse in one sentence before the model loads, and returns the sentence."""

    def run(*arguments: object) -> str:
        output = ["--output_dir", str(tmp_path / "out")]
        assert main(["train", *output, *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("weightlora train: ") and err.endswith(".\n")
        assert not (tmp_path / "out").exists()
        return err.removeprefix("weightlora train: ").strip()

    return run
