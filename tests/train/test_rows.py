"""Texts that are none, and texts that are far too long."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from recipes import GOOD, classified, files_of, train_tokenizer, write_rows

from weightlora.errors import DataError
from weightlora.train import rows as reading
from weightlora.train.rows import MARGIN, head_of, tail_of, words_of

SHORT, LONGEST = 2**12, 2**17
FIRST = "(counted from 0)"
QUESTION = {"id": "q", "question": "who?", "context": "Ann did it.", "answers": {"text": ["Ann"], "answer_start": [0]}}
CHAT_ROW = {
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "tools": [{"name": "add"}],
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of 4096 characters is short, and the longest beginning that is read has 131,072."""
    monkeypatch.setattr(reading, "SHORT", SHORT)
    monkeypatch.setattr(reading, "LONGEST", LONGEST)


class Counted:
    """A tokenizer that notes the longest text that it was given."""

    def __init__(self, kind: str = "llama") -> None:
        self.tokenizer, self.longest = train_tokenizer(kind, [GOOD] * 20), 0

    def __call__(self, text: Any, **settings: Any) -> Any:
        self.longest = max(self.longest, len(text) if isinstance(text, str) else sum(map(len, text)))
        return self.tokenizer(text, **settings)


@pytest.mark.parametrize("value", [None, 3, 0.5, True, ["a"], {"a": 1}])
@pytest.mark.parametrize("place_of_it", [0, 2])
def test_a_text_must_be_a_string(world: Path, rows: Path, refused, value: Any, place_of_it: int):
    content = [{"text": f"fine {i}", "label": i % 2} for i in range(4)]
    content[place_of_it]["text"] = value
    message = refused(*classified(world, write_rows(rows, content)))
    what = "an empty field" if value is None else repr(value)
    assert message.startswith(f"row {place_of_it} of train {FIRST} has {what} as its text, which must be a string")


@pytest.mark.parametrize(
    ("task", "model", "row", "name", "value"),
    [
        ("token-classification", "deberta", {"tokens": ["a"], "tags": ["X"]}, "tokens", None),
        ("token-classification", "deberta", {"tokens": ["a"], "tags": ["X"]}, "tokens", 3),
        ("token-classification", "deberta", {"tokens": ["a"], "tags": ["X"]}, "tokens", [None]),
        ("token-classification", "deberta", {"tokens": ["a"], "tags": ["X"]}, "tags", None),
        ("question-answering", "deberta", QUESTION, "question", None),
        ("question-answering", "deberta", QUESTION, "context", 3),
        ("question-answering", "deberta", QUESTION, "answers", None),
        ("question-answering", "deberta", QUESTION, "answers", {"text": [1], "answer_start": [0]}),
        ("question-answering", "deberta", QUESTION, "answers", {"text": ["Ann"], "answer_start": []}),
        ("question-answering", "deberta", QUESTION, "answers", {"text": ["Ann"], "answer_start": [None]}),
        ("seq2seq", "bart", {"source": "a", "target": "b"}, "target", ["b"]),
        ("causal-lm", "llama", {"text": "a"}, "text", ["a"]),
        ("causal-lm", "llama", {"prompt": "a", "completion": "b"}, "prompt", None),
        ("causal-lm", "llama", {"messages": [{"role": "assistant", "content": "b"}]}, "messages", [3]),
        ("causal-lm", "llama", {"messages": [{"role": "assistant", "content": "b"}]}, "messages", [{"content": "b"}]),
        ("causal-lm", "llama", CHAT_ROW, "messages", [{"role": "assistant", "content": {"a": 1}}]),
        ("causal-lm", "llama", CHAT_ROW, "tools", ["add"]),
        ("causal-lm", "llama", CHAT_ROW, "tools", "add"),
        ("causal-lm", "llama", CHAT_ROW, "tools", "[1]"),
    ],
)
def test_each_column_has_what_its_family_reads(
    world: Path, rows: Path, refused, task: str, model: str, row: dict[str, Any], name: str, value: Any
):
    pad = ["--pad_token", "</s>"] if model == "llama" else []
    arguments = ["--task", task, "--model", world / model, *pad, "--max_length", "64"]
    arguments += ["--stride", "8"] if task == "question-answering" else []
    message = refused(*arguments, *files_of(write_rows(rows, [row, row, {**row, name: value}])))
    assert message.startswith(f"row 2 of train {FIRST} has ") and f" as its {name}, which must be " in message


@pytest.mark.parametrize(
    ("task", "wrong", "message"),
    [
        ("text-classification", {"text": None}, "row {} of train (counted from 0) has an empty field as its text"),
        (
            "text-classification",
            {"label": 1.5},
            "the label 1.5 in row {} of train (counted from 0) is neither a whole number nor a name",
        ),
        (
            "text-classification",
            {"label": -1},
            "the label -1 in row {} of train (counted from 0) is below 0, and classes count from 0",
        ),
        ("regression", {"label": None}, "row {} of train (counted from 0) has an empty field as its label"),
        ("token-classification", {"tags": ["O"]}, "row {} of train (counted from 0) has 2 tokens and 1 tags"),
        ("causal-lm", {"completion": ""}, "row {} of train (counted from 0) has nothing to learn"),
        ("seq2seq", {"target": " "}, "row {} of train (counted from 0) has no target text"),
        (
            "question-answering",
            {"answers": {"text": ["Bob"], "answer_start": [0]}},
            "in row {} of train (counted from 0) is not in its",
        ),
    ],
)
def test_a_row_is_named_by_its_place_in_the_file_where_validation_rows_are_split_off(
    world: Path, rows: Path, refused, task: str, wrong: dict[str, Any], message: str
):
    def row(number: int) -> dict[str, Any]:
        question = QUESTION | {"id": f"q{number}", "context": f"Ann did it. {number}"}
        words = {"tokens": ["Ann", str(number)], "tags": ["PER", "O"]}
        return {
            "text-classification": {"text": f"{GOOD} {number}", "label": number % 2},
            "regression": {"text": f"{GOOD} {number}", "label": number / 2},
            "token-classification": words,
            "causal-lm": {"prompt": f"{number}?", "completion": GOOD},
            "seq2seq": {"source": f"{GOOD} {number}", "target": GOOD},
            "question-answering": question,
        }[task]

    model = {"causal-lm": "llama", "seq2seq": "bart"}.get(task, "deberta")
    given = ["--task", task, "--model", world / model, "--train_file", rows, "--max_length", 64]
    given += ["--stride", 16] if task == "question-answering" else []
    given += ["--pad_token", "</s>"] if model == "llama" else []
    for place in (7, 15):
        write_rows(rows, [row(number) | (wrong if number == place else {}) for number in range(16)])
        assert message.format(place) in refused(*given)


def test_a_second_text_is_in_all_splits(world: Path, rows: Path, tmp_path: Path, refused):
    one = write_rows(rows, [{"text": f"a {i}", "label": i % 2} for i in range(4)])
    two = write_rows(tmp_path / "two.jsonl", [{"text": f"b {i}", "pair": "c", "label": i % 2} for i in range(4)])
    given = ["--task", "text-classification", "--model", world / "deberta"]
    for files, paired, alone in (((one, two), "validation", "train"), ((two, one), "train", "validation")):
        message = refused(*given, "--train_file", files[0], "--validation_file", files[1])
        assert message.startswith(f"{paired} has a second text, pair, and {alone} has none: give both one, or leave")


def test_a_chat_that_the_template_refuses(world: Path, rows: Path, refused):
    alone = [{"messages": [{"role": "assistant", "content": "fine"}]}] * 2
    arguments = ["--task", "causal-lm", "--model", world / "llama", "--pad_token", "</s>"]
    message = refused(*arguments, *files_of(write_rows(rows, alone)))
    assert message.startswith("row 0 of train (counted from 0): the chat template cannot write the messages")


def parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


@pytest.mark.parametrize(
    ("written", "last"),
    [
        (str, {"role": "user", "content": "and?"}),
        (str, {"role": "assistant", "content": ""}),
        (parts, {"role": "assistant", "content": parts("") * 2}),
    ],
)
def test_a_chat_that_does_not_end_with_an_answer(world: Path, rows: Path, refused, written, last: dict[str, Any]):
    before = [{"role": "user", "content": written("a")}, {"role": "assistant", "content": written("b")}]
    chats = [{"messages": [*before, last]}] * 2
    arguments = ["--task", "causal-lm", "--model", world / "llama", "--pad_token", "</s>"]
    message = refused(*arguments, *files_of(write_rows(rows, chats)))
    why = (
        "its last message is empty, or not of the role 'assistant' (in ShareGPT, 'gpt'); fix the row, or leave it out."
    )
    assert message.endswith(f"{FIRST} has nothing to learn: {why}")


def test_a_template_of_parts_reads_them(world: Path, rows: Path, tmp_path: Path):
    from weightlora.train import parse, prepare

    shutil.copytree(world / "llama", tmp_path / "llama")
    template = "{% for m in messages %}<s>{% for p in m.content %}{{ p.text }}{% endfor %}</s>{% endfor %}"
    (tmp_path / "llama" / "chat_template.jinja").write_text(template)
    chats = [{"messages": [{"role": r, "content": parts(t)} for r, t in (("user", "a"), ("assistant", "b"))]}] * 2
    given = ["--task", "causal-lm", "--model", tmp_path / "llama", "--pad_token", "</s>"]
    given += [*files_of(write_rows(rows, chats)), "--output_dir", tmp_path / "out", "--use_cpu"]
    job = prepare(parse([*map(str, given), "--max_steps", "8"]))
    assert "type" not in job.tokenizer.decode(job.work.train[0]["input_ids"])


@pytest.mark.parametrize("between", ["\u2028", "\u2029", "\u0085", "\u00a0", "\ufeff"])
def test_a_line_ends_at_a_line_feed_and_nowhere_else(world: Path, rows: Path, tmp_path: Path, between: str):
    from weightlora.train import parse, prepare

    content = [{"text": f"fine{between}film {i}", "label": i % 2} for i in range(6)]
    rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
    given = [*classified(world, rows), "--max_length", "32", "--output_dir", tmp_path / "out", "--use_cpu"]
    assert prepare(parse([*map(str, given), "--max_steps", "8"])).plan.rows == {"train": 6, "validation": 6}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", ["deberta", "bart", "llama"])
def test_a_long_text_gives_the_same_tokens_and_is_not_read_to_its_end(kind: str):
    counted = Counted(kind)
    text = " ".join(f"{GOOD} number {i}" for i in range(4_000))
    assert len(text) > 20 * SHORT
    whole = counted.tokenizer(text, add_special_tokens=False).input_ids
    head, tail = head_of(counted, text, 128), tail_of(counted, text, 128)
    assert counted.longest <= SHORT
    assert counted.tokenizer(head, add_special_tokens=False).input_ids[:128] == whole[:128]
    assert counted.tokenizer(tail, add_special_tokens=False).input_ids[-128:] == whole[-128:]
    words = text.split(" ")
    first = words_of(counted, words, 128)
    assert counted.longest <= SHORT and first[:200] == words[:200] and len(first) < len(words)
    assert head_of(counted, short := text[:SHORT], 128) is short


@pytest.mark.usefixtures("short")
def test_a_text_that_has_too_few_tokens_at_its_beginning_is_read_on_and_then_refused():
    tokenizer = train_tokenizer("deberta", [GOOD] * 20)
    text = "\U0001f600" * 4_400 + f" {GOOD}" * (MARGIN + 128)  # unknown characters: one token for all of them
    whole = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer(head_of(tokenizer, text, 128), add_special_tokens=False).input_ids[:128] == whole[:128]
    with pytest.raises(DataError, match=r"characters, and the first .* of them have less than"):
        head_of(tokenizer, "\U0001f600" * 5 * LONGEST, 128)


def test_of_a_row_of_10_megabytes_the_tokenizer_sees_the_beginning(
    world: Path, rows: Path, tmp_path: Path, monkeypatch
):
    from transformers import PreTrainedTokenizerBase

    from weightlora.train import parse, prepare

    lengths, tokenize = [], PreTrainedTokenizerBase.__call__

    def watched(self, text=None, *args, **settings):
        lengths.extend(map(len, [text] if isinstance(text, str) else text or []))
        return tokenize(self, text, *args, **settings)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", watched)
    write_rows(rows, [{"text": "fine film " * 1_000_000, "label": 0}, {"text": "dull", "label": 1}])
    given = [*classified(world, rows), "--max_length", "32", "--output_dir", tmp_path / "out", "--use_cpu"]
    job = prepare(parse([*map(str, given), "--max_steps", "8"]))
    assert 10 < max(lengths) < 100_000
    assert len(job.work.train[0]["input_ids"]) == 32


@pytest.mark.parametrize(
    ("task", "row", "empty"),
    [
        ("text-classification", {"text": "fine", "label": 0}, {"text": "", "label": 1}),
        ("token-classification", {"tokens": ["Ann", "did"], "tags": ["PER", "O"]}, {"tokens": [], "tags": []}),
    ],
)
def test_a_row_without_tokens(world: Path, rows: Path, tmp_path: Path, refused, task: str, row: dict, empty: dict):
    """As an empty text is with the tokenizers of Qwen and GPT-2, which add no special tokens."""
    shutil.copytree(world / "llama", tmp_path / "llama")
    place = tmp_path / "llama" / "tokenizer.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "post_processor": None}))
    given = ["--task", task, "--model", tmp_path / "llama", "--pad_token", "</s>"]
    message = refused(*given, *files_of(write_rows(rows, [row, empty])))
    assert message.startswith(f"row 1 of train {FIRST} is empty, and the tokenizer of this model makes no token")
