"""Tiny models and data for comparisons, and runs that execute in this process: a new one takes seconds to import."""

import contextlib
import io
import json

import pytest
from models import sentence
from pictures import figure_of as figure_of
from recipes import caches as caches  # for every test of this directory
from recipes import save_model

from weightlora.compare import session, worker

FAST = ["--max_steps", "4", "--per_device_train_batch_size", "4", "--max_length", "16", "--rank", "2", "--use_cpu"]


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """deberta/, llama/, films.jsonl (120 texts of two classes) and stories.jsonl (60 texts)."""
    directory = tmp_path_factory.mktemp("compare")
    for kind in ("deberta", "llama"):
        save_model(kind, directory / kind)
    texts = [sentence(i) for i in range(120)]
    films = [{"text": text, "label": "pos" if i % 2 else "neg"} for i, text in enumerate(texts)]
    stories = [{"text": f"the {text} was number {i} and the end"} for i, text in enumerate(texts[:60])]
    for name, rows in (("films", films), ("stories", stories)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


@pytest.fixture
def in_process(monkeypatch):
    """Executes the runs of a comparison in this process, one after another; the names of those that began."""
    began = []

    def execute(processes, jobs, on_end, on_step):
        failures = []
        for process in processes:
            began.append(process.name)
            on_step(process, 0, 0)
            monkeypatch.setattr(worker, "tell_progress", lambda *steps, process=process: on_step(process, *steps))
            with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
                monkeypatch.setattr("sys.stdin", io.StringIO(process.given))
                code = worker.main()
            error = said.getvalue().strip().splitlines()[-1] if code else None
            failures += [(process, error)] if code else []
            on_end(process, None if code else 1.0, error)
        return failures

    monkeypatch.setattr(session, "execute", execute)
    return began


@pytest.fixture
def films(place):
    """Arguments of a comparison of classifiers that is over soon."""
    return ["--model", str(place / "deberta"), "--train_file", str(place / "films.jsonl"), *FAST]


@pytest.fixture
def stories(place):
    """Arguments of a comparison of causal language models that is over soon."""
    model = ["--model", str(place / "llama"), "--task", "causal-lm", "--pad_token", "</s>"]
    return [*model, "--train_file", str(place / "stories.jsonl"), *FAST]
