import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from recipes import write_rows

from weightlora.errors import DataError
from weightlora.train.data import read_splits
from weightlora.train.layouts import as_causal
from weightlora.train.settings import DataArguments
from weightlora.train.tasks import COLUMNS, find_task
from weightlora.train.verbatim import as_written

COLUMNS_READ = COLUMNS["causal-lm"]
SHAREGPT = [{"from": "system", "value": "be kind"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
]


@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_conversations_of_sharegpt_become_messages(name: str):
    rows, columns, _ = as_causal("train", Dataset.from_list([{"id": 1, name: SHAREGPT}]), COLUMNS_READ)
    assert columns == {"messages": name, "tools": "tools"}
    assert rows[0][name] == CHAT and rows[0]["id"] == 1


def test_messages_of_sharegpt_may_differ_in_their_fields(tmp_path):
    """Datasets then says nothing of the fields, nor of other columns, whose values may differ in their types."""
    given = [
        {"id": 1, "conversations": SHAREGPT},
        {"id": "b", "conversations": [*SHAREGPT[:2], {**SHAREGPT[2], "score": 1}]},
    ]
    rows = load_dataset("json", data_files=str(write_rows(tmp_path / "rows.jsonl", given)), split="train")
    rows, columns, _ = as_causal("train", rows, COLUMNS_READ)
    assert rows[columns["messages"]][:] == [CHAT, CHAT] and rows["id"][:] == [1, "b"]


def test_conversations_may_have_roles_already():
    given = Dataset.from_list([{"conversations": CHAT}])
    rows, columns, _ = as_causal("train", given, COLUMNS_READ)
    assert columns["messages"] == "conversations" and rows[0]["conversations"] == CHAT


@pytest.mark.parametrize(("name", "chat"), [("messages", CHAT), ("conversations", SHAREGPT), ("conversations", CHAT)])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_messages_may_be_written_as_json(tmp_path: Path, name: str, chat: list, ending: str):
    """As tables often have them, and the fields of one message are not those of all."""
    calls = [{"type": "function", "function": {"name": "look", "arguments": {"depth": 0.1}}}]
    more = [*CHAT, {"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    given = Dataset.from_list([{"id": 1, name: json.dumps(chat)}, {"id": 2, name: json.dumps(more)}])
    path = tmp_path / f"rows{ending}"
    given.to_csv(path) if ending == ".csv" else given.to_parquet(path)
    arguments = DataArguments(task="causal-lm", train_file=str(path), validation_file=str(path))
    rows = read_splits(arguments, find_task("causal-lm")).rows["train"]
    assert [as_written(row, rows.features)["messages"] for row in rows] == [CHAT, more]


@pytest.mark.parametrize("text", ["hi", "[{'role': 'user'}]", '{"role": "user"}', "[" * 100 + "]" * 100])
def test_messages_that_are_another_text_are_refused(text: str):
    given = Dataset.from_list([{"messages": json.dumps(CHAT)}, {"messages": None}, {"messages": text}])
    with pytest.raises(DataError, match=r"^row 2 of dev .* as its messages, which must be .* as JSON: save the rows"):
        as_causal("dev", given, COLUMNS_READ)


@pytest.mark.parametrize("other", [True, 3, {"role": "user"}])
def test_messages_that_are_no_list_are_refused(tmp_path: Path, other: Any):
    write_rows(path := tmp_path / "rows.jsonl", [{"messages": CHAT}, {"messages": other}])
    arguments = DataArguments(task="causal-lm", train_file=str(path), validation_file=str(path))
    with pytest.raises(
        DataError, match=r"row 1 of .* as its messages, which must be a list of .* JSON: fix the row\."
    ):
        read_splits(arguments, find_task("causal-lm"))


def test_messages_may_be_written_as_json_in_one_file_alone(tmp_path: Path):
    write_rows(tmp_path / "train-0.jsonl", [{"messages": json.dumps(CHAT)}])
    write_rows(tmp_path / "train-1.jsonl", [{"messages": CHAT}])
    task = replace(find_task("causal-lm"), evaluation=())
    rows = read_splits(DataArguments(dataset=str(tmp_path)), task, str(tmp_path / "cache")).rows["train"]
    assert rows["messages"][:] == [CHAT, CHAT]


def test_messages_come_before_conversations_and_the_users_names_before_both():
    given = Dataset.from_list([{"messages": CHAT, "conversations": SHAREGPT, "chats": SHAREGPT[1:]}])
    rows, columns, _ = as_causal("train", given, COLUMNS_READ)
    assert columns["messages"] == "messages" and rows[0]["messages"] == CHAT
    rows, columns, _ = as_causal("train", given, {**COLUMNS_READ, "messages": "chats"})
    assert columns["messages"] == "chats" and rows[0]["chats"] == CHAT[1:]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"text": "body"}, ["text"]),
        ({"prompt": "body", "completion": "output"}, ["prompt", "completion"]),
        ({"completion": "body"}, ["prompt", "completion"]),  # whose prompt is missing: the caller says so
        ({"tools": "body"}, ["messages", "tools"]),
    ],
)
def test_a_column_that_the_user_names_is_read_whatever_else_there_is(given: dict, read: list):
    rows = Dataset.from_list([{"messages": CHAT, "body": "b", "instruction": "i", "output": "o"}])
    made, columns, _ = as_causal("train", rows, {**COLUMNS_READ, **given}, given)
    assert columns == {name: {**COLUMNS_READ, **given}[name] for name in read} and made is rows


def test_a_row_without_messages_is_left_for_the_check_of_rows():
    rows, *_ = as_causal("train", Dataset.from_list([{"messages": SHAREGPT}, {"messages": None}]), COLUMNS_READ)
    assert rows[0]["messages"] == CHAT and rows[1]["messages"] is None


def test_a_turn_of_sharegpt_keeps_the_mark_that_it_is_not_learned():
    answer = {"from": "gpt", "value": "bad", "train": False}
    rows, *_ = as_causal("train", Dataset.from_list([{"conversations": [SHAREGPT[1], answer]}]), COLUMNS_READ)
    assert rows[0]["conversations"][-1] == {"role": "assistant", "content": "bad", "train": False}


def test_rows_of_alpaca_become_prompts_and_completions():
    given = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Greet.", "input": "", "output": "hi"},
        {"instruction": None, "input": "x", "output": "y"},
    ]
    rows, columns, _ = as_causal("train", Dataset.from_list(given), COLUMNS_READ)
    assert columns == {"prompt": "prompt", "completion": "completion"}
    assert rows["prompt"][:] == [
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n",
        "### Instruction:\nGreet.\n\n### Response:\n",
        None,
    ]
    assert rows["completion"][:] == ["3", "hi", "y"]
    without = Dataset.from_list([{"instruction": "Greet.", "output": "hi"}])
    assert as_causal("train", without, COLUMNS_READ)[0]["prompt"][0] == "### Instruction:\nGreet.\n\n### Response:\n"


def test_a_system_prompt_beside_a_conversation_is_its_first_message():
    given = [{"system": "be kind", "conversations": SHAREGPT[1:]}, {"system": "", "conversations": SHAREGPT[1:]}]
    given += [{"system": "be rude", "conversations": SHAREGPT}]
    rows, *_ = as_causal("train", Dataset.from_list(given), COLUMNS_READ)
    assert rows["conversations"][:] == [CHAT, CHAT[1:], CHAT], "one in the conversation counts"


@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_a_system_prompt_beside_messages_with_roles_is_their_first(name: str):
    calls = [*CHAT[1:], {"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": "look"}]
    given = Dataset.from_list([{"system": "be kind", name: calls}, {"system": None, name: CHAT[1:]}])
    rows, *_ = as_causal("train", given, COLUMNS_READ)
    first, second = rows[name][:]
    assert [(one["role"], one["content"], one["tool_calls"]) for one in first] == [
        ("system", "be kind", None), ("user", "hi", None), ("assistant", "ho", None), ("user", "x", None),
        ("assistant", None, "look"),
    ]  # fmt: skip
    assert [one["role"] for one in second] == ["user", "assistant"]


def test_a_system_prompt_changes_no_other_message(tmp_path):
    """Files of JSON have types of their own, which keep what each message says and leaves out."""
    asks = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [{"a": 1}]}]
    given = [{"system": "be kind", "messages": asks}, {"system": None, "messages": [*asks, {"role": "tool"}]}]
    (tmp_path / "rows.json").write_text(json.dumps(given))
    read = load_dataset("json", data_files=str(tmp_path / "rows.json"), split="train", cache_dir=str(tmp_path / "c"))
    rows, *_ = as_causal("train", read, COLUMNS_READ)
    assert rows.features["messages"] == read.features["messages"]
    assert rows["messages"][:] == [[{"role": "system", "content": "be kind"}, *asks], given[1]["messages"]]


def test_calls_in_sharegpts_way_are_refused():
    calls = [*SHAREGPT, {"from": "function_call", "value": '{"name": "look"}'}]
    with pytest.raises(DataError, match="train has messages from 'function_call', which chat templates do not know"):
        as_causal("train", Dataset.from_list([{"conversations": calls}]), COLUMNS_READ)


@pytest.mark.parametrize("given", [["a"], {"a": 1}, 0])
def test_an_input_of_alpaca_is_a_text(given: Any):
    """Lists were written as Python does, and 0 was left out."""
    with pytest.raises(DataError, match=r"row 0 of train .* as its input, which must be a string, or empty"):
        as_causal("train", Dataset.from_list([{"instruction": "Add.", "input": given, "output": "3"}]), COLUMNS_READ)


def test_a_list_of_objects_is_a_chat_if_they_have_roles():
    """Else it was proposed as one, and refused then."""
    rows = Dataset.from_list([{"turns": [{"input": "a", "output": "b"}]}])
    with pytest.raises(DataError, match="has neither messages") as refusal:
        as_causal("train", rows, COLUMNS_READ)
    assert "messages" not in str(refusal.value).partition("as in --columns")[2]


def test_rows_of_alpaca_are_read_as_such_beside_a_text_with_all_of_them():
    """They were read as texts, so the loss was that of prompts, too. The first Alpaca data set has such a column."""
    row = {"instruction": "Name a prime.", "input": "", "output": "Seven.", "text": "Below is an instruction. Seven."}
    _, columns, _ = as_causal("rows", Dataset.from_list([row]), COLUMNS_READ)
    assert columns == {"prompt": "prompt", "completion": "completion"}
    _, columns, _ = as_causal("rows", Dataset.from_list([row]), COLUMNS_READ, {"text"})
    assert columns == {"text": "text"}


def test_rows_of_alpaca_may_have_a_system_prompt_and_a_history():
    row = {"instruction": "And 2 3?", "output": "5", "system": "Add.", "history": [["1 2?", "3"], ["2 2?", "4"]]}
    plain = {"instruction": "Greet.", "output": "hi", "system": None, "history": []}
    rows, *_ = as_causal("train", Dataset.from_list([row, plain]), COLUMNS_READ)
    earlier = "".join(f"### Instruction:\n{q}\n\n### Response:\n{a}\n\n" for q, a in row["history"])
    assert rows["prompt"][:] == [
        f"Add.\n\n{earlier}### Instruction:\nAnd 2 3?\n\n### Response:\n",
        "### Instruction:\nGreet.\n\n### Response:\n",
    ]


@pytest.mark.parametrize(
    ("column", "value"),
    [("history", value) for value in ([None], [["a"]], [["a", "b", "c"]], [["a", None]], [[1, 2]], ["ab"], "[]", 3)]
    + [("system", value) for value in (3, 0, {"a": "b"}, ["a"])],
)
def test_a_system_prompt_or_a_history_of_another_kind_is_an_error_of_its_row(column, value):
    row = {"instruction": "Greet.", "output": "hi", column: value}
    with pytest.raises(DataError, match=rf"^row 0 of dev \(counted from 0\) has .* as its {column}, which must be a"):
        as_causal("dev", Dataset.from_list([row]), COLUMNS_READ)


def test_a_system_prompt_beside_a_conversation_has_to_be_a_text_like_its_messages():
    with pytest.raises(DataError, match=r"row 0 of train .* has 3 as its system, which must be a string"):
        as_causal("train", Dataset.from_list([{"system": 3, "conversations": SHAREGPT}]), COLUMNS_READ)
    numbers = [{"from": "human", "value": 1}, {"from": "gpt", "value": 2}]
    with pytest.raises(DataError, match="train has system prompts, which are strings, beside messages with other"):
        as_causal("train", Dataset.from_list([{"system": "count", "conversations": numbers}]), COLUMNS_READ)
    rows, *_ = as_causal("train", Dataset.from_list([{"system": SHAREGPT}]), {**COLUMNS_READ, "messages": "system"})
    assert rows["system"][:] == [CHAT], "the column with that name may have the messages"


@pytest.mark.parametrize(
    "row, named",
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, '{"prompt": "prompt", "completion": "chosen"}'),
        ({"chosen": "b", "rejected": "c"}, '{"text": "chosen"}'),
        (
            {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"},
            '{"prompt": "instruction", "completion": "chosen"}',
        ),
    ],
)
def test_pairs_of_answers_are_refused_with_what_to_do(row: dict, named: str):
    with pytest.raises(
        DataError, match="pairs of answers, chosen and rejected, and a causal LM learns one"
    ) as refused:
        as_causal("train", Dataset.from_list([row]), COLUMNS_READ)
    assert f"--columns '{named}'" in str(refused.value)


@pytest.mark.parametrize(
    ("names", "proposed"),
    [
        ("prompt response", '{"prompt": "prompt", "completion": "response"}'),
        ("id answer question", '{"prompt": "question", "completion": "answer"}'),
        ("prompt body", '{"prompt": "prompt", "completion": "your_column"}'),
        ("source problem solution", '{"prompt": "problem", "completion": "solution"}'),
        ("id body", '{"text": "body"}'),
        ("title body", '{"text": "body"}'),
        ("first second", '{"text": "your_column"}'),
    ],
)
def test_a_prompt_is_not_proposed_without_its_answer(names: str, proposed: str):
    given = Dataset.from_list([dict.fromkeys(names.split(), "a")] * 2)
    with pytest.raises(DataError, match="neither messages") as refusal:
        as_causal("train", given, COLUMNS_READ)
    assert str(refusal.value).endswith(f"name the right one, as in --columns '{proposed}'.")


def test_a_chat_in_another_column_is_proposed_as_messages():
    given = Dataset.from_list([{"id": 1, "conversation": CHAT}] * 2)
    with pytest.raises(DataError, match=r"""as in --columns '{"messages": "conversation"}'\.$"""):
        as_causal("train", given, COLUMNS_READ)


def of_parts(kind: str) -> list[dict]:
    return [{"role": role, "content": [{"type": kind, "text": "hi"}]} for role in ("user", "assistant")]


@pytest.mark.parametrize(
    ("bare", "row", "where"),
    [
        ({"messages": of_parts("text")}, {"messages": of_parts("image_url")}, "its messages"),
        (
            {"conversations": SHAREGPT, "images": []},
            {"conversations": SHAREGPT, "images": ["a"]},
            "the column 'images'",
        ),
        ({"messages": CHAT, "videos": "[]"}, {"messages": CHAT, "videos": '["a"]'}, "the column 'videos'"),
        (
            {"prompt": CHAT[:2], "completion": CHAT[2:], "image": None},
            {"prompt": CHAT[:2], "completion": CHAT[2:], "image": {"bytes": b"", "path": "a"}},
            "the column 'image'",
        ),
        (
            {"prompt": "hi", "completion": "ho", "images": []},
            {"prompt": "hi", "completion": "ho", "images": ["a"]},
            "the column 'images'",
        ),
        (
            {"instruction": "hi", "output": "ho", "images": None},
            {"instruction": "hi", "output": "ho", "images": ["a"]},
            "the column 'images'",
        ),
    ],
)
def test_questions_about_images_are_refused(bare: dict, row: dict, where: str):
    """The model would get no image: it would learn to answer without."""
    as_causal("train", Dataset.from_list([bare]), COLUMNS_READ)
    with pytest.raises(DataError, match=f"^row 1 of train .* has images, audio or video in {where}, and only texts"):
        as_causal("train", Dataset.from_list([bare, row]), COLUMNS_READ)


@pytest.mark.parametrize("beside", [{}, {"id": 1, "messages": "of another form"}])
def test_prompts_and_completions_of_messages_become_chats(beside: dict):
    """As in TRL's conversational prompt-completion data."""
    given = [
        {"question": CHAT[:2], "answer": CHAT[2:], "tools": "[]", **beside},
        {"question": CHAT[:2], "answer": None, "tools": "[]", **beside},
    ]
    names = {"prompt": "question", "completion": "answer"}
    rows, columns, _ = as_causal("train", Dataset.from_list(given), {**COLUMNS_READ, **names}, names)
    assert columns == {"messages": "messages", "tools": "tools"}
    assert rows["messages"][:] == [CHAT, None] and rows["tools"][:] == ["[]", "[]"]


def test_messages_of_prompts_and_completions_are_those_of_the_file(tmp_path: Path):
    """Whatever types and fields other rows have: a template writes the fields of a call as they are."""

    def call(**arguments: object) -> dict:
        return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}

    answers = [call(city="Paris", near=None), call(city=7.9007), CHAT[2], {**CHAT[2], "content": [{"text": "ho"}]}]
    write_rows(tmp_path / "a.jsonl", [{"prompt": CHAT[:2], "completion": [answer]} for answer in answers])
    arguments = DataArguments(train_file=str(tmp_path / "a.jsonl"))
    task = replace(find_task("causal-lm"), evaluation=())
    rows = read_splits(arguments, task, str(tmp_path / "cache")).rows["train"]
    found = [as_written(value, rows.features["messages"]) for value in rows["messages"]]
    assert json.dumps(found) == json.dumps([[*CHAT[:2], answer] for answer in answers])


def test_typed_messages_of_prompts_and_completions_have_no_fields_of_others():
    answer = {"role": "assistant", "content": "ho", "name": "ann"}
    rows, *_ = as_causal("train", Dataset.from_list([{"prompt": CHAT[:2], "completion": [answer]}]), COLUMNS_READ)
    assert rows["messages"][0] == [*CHAT[:2], answer]


@pytest.mark.parametrize(
    ("row", "proposed"),
    [
        ({"prompt": "hi", "chosen": "ho"}, {"prompt": "prompt", "completion": "chosen"}),
        ({"prompt": CHAT[:2], "chosen": CHAT[2:]}, {"prompt": "prompt", "completion": "chosen"}),
        ({"prompt": "hi", "chosen": CHAT}, {"messages": "chosen"}),
        ({"chosen": CHAT}, {"messages": "chosen"}),
        ({"chosen": "hi ho"}, {"text": "chosen"}),
    ],
)
def test_the_columns_that_are_proposed_for_pairs_of_answers_can_be_read(row: dict, proposed: dict):
    rows = Dataset.from_list([{**row, "rejected": row["chosen"]}])
    with pytest.raises(DataError) as caught:
        as_causal("train", rows, COLUMNS_READ)
    assert f"'{json.dumps(proposed)}'" in str(caught.value)
    made, columns, _ = as_causal("train", rows, {**COLUMNS_READ, **proposed}, proposed)
    if "messages" in columns:
        assert made[columns["messages"]][0] == CHAT


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"text": "a", "id": 1}, ("id",)),
        ({"prompt": "a", "completion": "b", "text": "ab"}, ("text",)),
        ({"prompt": CHAT[:2], "completion": CHAT[2:], "score": 1}, ("score",)),
        ({"messages": CHAT, "system": "be kind", "tools": [], "source": "web"}, ("source",)),
        ({"conversations": SHAREGPT, "id": 1}, ("id",)),
        ({"instruction": "a", "output": "b", "text": "ab"}, ("text",)),
        ({"instruction": "a", "output": "b", "prompt": "all of it"}, ("prompt",)),
        ({"instruction": "a", "input": "i", "output": "b", "system": "s", "history": [["q", "r"]]}, ()),
    ],
)
def test_columns_that_are_not_read_are_told(tmp_path: Path, row: dict, unread: tuple):
    path = str(write_rows(tmp_path / "rows.jsonl", [row]))
    splits = read_splits(
        DataArguments(task="causal-lm", train_file=path, validation_file=path), find_task("causal-lm"), str(tmp_path)
    )
    assert splits.unread == unread and splits.read == tuple(name for name in row if name not in unread)
