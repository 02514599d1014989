"""Experiments of two small tasks, and results as if they had run."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from benchmarks.workloads import minilm
from models import save_classifier
from pictures import figure_of as figure_of  # for every test of this directory, like the next one
from recipes import caches as caches
from recipes import save_model, write_glue
from stored import VERSIONS, result

from weightlora.train import demo
from weightlora.train.result import HELD_OUT_LOSS, write_result

READ_ONCE = cache(demo._read_reviews)


@pytest.fixture(autouse=True)
def reviews_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in one file of 35 MB, which most workloads read."""
    monkeypatch.setattr(demo, "_read_reviews", READ_ONCE)


@pytest.fixture(scope="session")
def tiny_minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with the modules of MiniLM, but two layers, narrow and random, that knows 46 words of the reviews."""
    words = Counter(word for row in READ_ONCE("rotten_tomatoes")[:500] for word in row["text"].split())
    directory = tmp_path_factory.mktemp("minilm")
    save_classifier(directory, [word for word, _ in words.most_common(46)], intermediate_size=64)
    return directory


@pytest.fixture
def minilm_is_tiny(tiny_minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workloads of MiniLM run in a moment. The real one is in `workloads/test_minilm.py`."""
    monkeypatch.setattr(minilm, "minilm_path", lambda: tiny_minilm)


@pytest.fixture
def root(tmp_path):
    for task in ("a", "b"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "task.json").write_text(json.dumps({"steps": 10, "seeds": 2}))
        for label in ("lora", "random"):
            (tmp_path / task / f"{label}.json").write_text("{}")
    (tmp_path / "a" / "k5.json").write_text(json.dumps({"method": "weightlora", "keep": 5, "steps": 20}))
    return tmp_path


@pytest.fixture
def finish():
    """Writes the result of a run."""

    def write(run, settings=None, loss=0.5, versions=VERSIONS) -> None:
        made = result(
            run.experiment["label"],
            run.seed,
            task=run.experiment["task"],
            settings=settings or run.experiment,
            steps=run.experiment["steps"],
            metrics={"test": {HELD_OUT_LOSS: loss, "accuracy": 0.5}},
            versions=versions,
        )
        write_result(run.output, made)

    return write


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and a model on disk: glue/ and deberta/."""
    root = tmp_path_factory.mktemp("world")
    write_glue(root / "glue")
    save_model("deberta", root / "deberta")
    return root
