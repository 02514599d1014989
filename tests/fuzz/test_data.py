"""Data files that nobody would write: each is planned, with every row that it has, or refused in one sentence."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from fuzzing import damaged, fuzz, outcome_of, texts, values
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from recipes import QUICK, save_model
from recipes import caches as caches

from weightlora.train import parse, prepare
from weightlora.train.plan import Plan

CHAT = [{"role": "user", "content": "a film"}, {"role": "assistant", "content": "fine"}]
FAMILIES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "text-classification": [("deberta", {"text": "a fine film", "label": 1})],
    "regression": [("deberta", {"text": "a fine film", "label": 1.5})],
    "token-classification": [("deberta", {"tokens": ["Ann", "acts"], "tags": ["PER", "O"]})],
    "question-answering": [
        (
            "deberta",
            {
                "id": "q",
                "question": "who?",
                "context": "Ann did it.",
                "answers": {"text": ["Ann"], "answer_start": [0]},
            },
        )
    ],
    "seq2seq": [("bart", {"source": "a fine film", "target": "fine"})],
    "causal-lm": [
        ("llama", {"text": "a fine film"}),
        ("llama", {"prompt": "a film", "completion": "fine"}),
        ("llama", {"messages": CHAT}),
    ],
}
SMALL = {"question-answering": ["--stride", "16"], "seq2seq": ["--max_target_length", "8"]}
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    for kind in ("deberta", "bart", "llama"):
        save_model(kind, root / kind)
    return root


@st.composite
def families(draw: st.DrawFn) -> tuple[str, str, list[dict[str, Any]]]:
    """A task, its model, and rows that are right."""
    task = draw(st.sampled_from(sorted(FAMILIES)))
    model, row = draw(st.sampled_from(FAMILIES[task]))
    rows = [dict(row) for _ in range(6)]
    if task == "text-classification":
        for number, one in enumerate(rows):
            one["label"] = number % 2
    return task, model, rows


@st.composite
def odd_rows(draw: st.DrawFn) -> tuple[str, str, list[dict[str, Any]]]:
    """Rows with values, names of columns or parts of values that do not belong there."""
    task, model, rows = draw(families())
    for _ in range(draw(st.integers(1, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        if not row:
            continue
        name = draw(st.sampled_from(sorted(row)))
        kind = draw(st.sampled_from(["value", "value", "text", "text", "inner", "gone", "more", "more"]))
        inner = row[name]
        if kind == "inner" and isinstance(inner, dict | list) and inner:
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            row[name] = dict(inner) if isinstance(inner, dict) else list(inner)
            row[name][key] = draw(values)
        elif kind == "gone":
            del row[name]
        elif kind == "text" and isinstance(inner, str):
            row[name] = inner + draw(texts)
        elif kind == "more":
            row[draw(texts)] = draw(values)
        else:
            row[name] = draw(values)
    return task, model, rows


def lines_of(rows: list[dict[str, Any]]) -> bytes:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "surrogatepass")


def write(path: Path, rows: list[dict[str, Any]]) -> bool:
    """Write rows in the format of the ending; returns False where the format cannot hold them."""
    if path.suffix == ".jsonl":
        path.write_bytes(lines_of(rows))
    elif path.suffix == ".json":
        path.write_bytes(b"[" + b",\n".join(lines_of([row]).strip() for row in rows) + b"]")
    elif path.suffix == ".parquet":
        try:
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        except (pyarrow.ArrowException, TypeError, OverflowError, UnicodeError):
            return False
    else:
        between = "," if path.suffix == ".csv" else "\t"
        names = list(rows[0])
        table = [between.join(names), *(between.join(str(row.get(name, "")) for name in names) for row in rows)]
        path.write_bytes("\n".join(table).encode("utf-8", "surrogatepass"))
    return True


def plan_of(place: Path, task: str, model: str, file: Path) -> Plan | None:
    pad = ["--pad_token", "</s>"] if model == "llama" else []
    files = ["--train_file", file, "--validation_file", file, "--output_dir", file.parent / "out"]
    given = ["--task", task, "--model", place / model, "--method", "lora", *files, *pad, *QUICK, *SMALL.get(task, [])]
    plan = outcome_of(lambda: prepare(parse([str(word) for word in given])).plan)
    return plan


@given(odd_rows(), st.sampled_from(FORMATS))
@fuzz(45)
def test_odd_rows_are_planned_or_refused(place: Path, rows: tuple[str, str, list[dict[str, Any]]], ending: str):
    task, model, content = rows
    with tempfile.TemporaryDirectory(dir=place) as directory:
        file = Path(directory) / f"rows{ending}"
        if not write(file, content):
            return
        plan = plan_of(place, task, model, file)
        if plan is not None and ending in (".jsonl", ".json", ".parquet") and task != "question-answering":
            assert plan.rows["train"] == len(content)


@given(st.data())
@fuzz(35)
def test_damaged_files_are_planned_or_refused(place: Path, data: st.DataObject):
    """A damaged file that is planned has a row for each JSON value, and nothing that is not JSON."""
    task, model, rows = data.draw(families())
    ending = data.draw(st.sampled_from(FORMATS))
    with tempfile.TemporaryDirectory(dir=place) as directory:
        file = Path(directory) / f"rows{ending}"
        write(file, rows)
        content = data.draw(damaged(file.read_bytes()))
        file.write_bytes(content)
        plan = plan_of(place, task, model, file)
        if plan is not None and ending == ".jsonl" and task != "question-answering":
            assert plan.rows["train"] == len(list(values_in(content.decode("utf-8-sig"))))


def values_in(text: str) -> Iterator[Any]:
    """The JSON values of a text, one after another: a line break may be inside of one."""
    decoder, place = json.JSONDecoder(strict=False), 0
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        value, place = decoder.raw_decode(text, place)
        yield value
