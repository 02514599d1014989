"""Experiments of two small tasks, and results as if they had run."""

import json

import pytest

from weightlora import __version__


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
    """Writes a run's result, with changes."""

    def write(run, **changes) -> None:
        run.output.parent.mkdir(parents=True, exist_ok=True)
        result = {"format": 1, "experiment": run.experiment, "seed": run.seed, "loss": 0.5}
        result |= {"versions": {"weightlora": __version__}}
        run.output.write_text(json.dumps(result | changes))

    return write
