"""What no part of a causal LM would read, or nobody should learn, is refused, and was left out or learned silently."""

import json
from typing import Any

import pytest
from datasets import Dataset, Features, Json, Value

from weightlora.errors import DataError
from weightlora.train.layouts import as_causal
from weightlora.train.tasks import COLUMNS

PAIR = {"prompt": "a film", "completion": "good"}
CHAT = {"messages": [{"role": "user", "content": "a film"}, {"role": "assistant", "content": "good"}]}
ALPACA = {"instruction": "Review", "input": "a film", "output": "good"}


def read(*rows: dict[str, Any], **named: str) -> dict[str, str | None]:
    columns = {**COLUMNS["causal-lm"], **named}
    return as_causal("train", Dataset.from_list([*rows]), columns, named)[1]


@pytest.mark.parametrize("name", ["system", "system_prompt", "functions"])
def test_what_comes_before_a_prompt_of_text_must_be_in_it(name: str):
    with pytest.raises(
        DataError, match=f"row 1 of train .* has 'Be kind' as its {name}, which .* into the question, or"
    ):
        read({**PAIR, name: ""}, {**PAIR, name: "Be kind"})
    assert read({**PAIR, name: ""}, {**PAIR, name: None})["prompt"] == "prompt"
    assert read({**PAIR, name: "Be kind"}, prompt=name)["prompt"] == name


def test_earlier_turns_are_read_beside_rows_of_alpaca_alone():
    for row in (PAIR, CHAT):
        with pytest.raises(DataError, match=r"has \[\['a', 'b'\]\] as its history"):
            read({**row, "history": [["a", "b"]]})
    assert read({**ALPACA, "history": [["a", "b"]]})


@pytest.mark.parametrize("row", [CHAT, ALPACA])
@pytest.mark.parametrize(
    ("name", "remedy"), [("system_prompt", "rename the column to system"), ("functions", "into the question")]
)
def test_chats_and_rows_of_alpaca_read_a_system_prompt_by_one_name(row: dict[str, Any], name: str, remedy: str):
    with pytest.raises(DataError, match=f"as its {name}, which would be left out: .*{remedy}, or drop the column"):
        read({**row, name: "Be kind"})
    assert read({**row, "system": "Be kind"})


@pytest.mark.parametrize("row", [PAIR, CHAT, ALPACA])
def test_an_answer_that_is_marked_as_bad_is_not_learned(row: dict[str, Any]):
    """Unpaired preferences, as KTO has them. Other labels may be classes."""
    with pytest.raises(DataError, match=r"row 1 of train .* has the label false, which marks a bad answer"):
        read({**row, "label": True}, {**row, "label": False})
    assert read({**row, "label": True}) == read({**row, "label": 0}) == read(row)


def test_a_text_with_an_answer_beside_it_is_not_read_alone():
    task = {"text": "Sort a list.", "response": "sorted(a)"}
    with pytest.raises(DataError, match="beside it its response, which would be left out: name both, as in --columns"):
        read(task)
    assert read({**task, "text": "Q: Sort a list. A: sorted(a)"}) == read(task, text="text") == {"text": "text"}
    assert read(task, prompt="text", completion="response") == {"prompt": "text", "completion": "response"}


@pytest.mark.parametrize(
    ("row", "lost"),
    [
        ({"instruction": "Sum up", "context": "a film", "response": "good"}, "context"),
        ({"system_prompt": "s", "question": "a film", "response": "good"}, "system_prompt"),
        ({"instruction": "Sum up", "input": "a film", "chosen": "good", "rejected": "bad"}, "input"),
    ],
)
def test_proposed_columns_name_what_they_leave_out(row: dict[str, Any], lost: str):
    with pytest.raises(DataError, match=f"}}' after writing {lost} into the prompt"):
        read(row)


@pytest.mark.parametrize("name", ["context", "input", "instruction"])
def test_a_part_of_a_question_in_another_column_must_be_in_the_question(name: str):
    with pytest.raises(DataError, match=f"row 0 of train .* has 'by Ann' as its {name}, which would be left out"):
        read({**PAIR, name: "by Ann"})
    assert read({**PAIR, "prompt": "a film by Ann", name: "by Ann"}) == read(PAIR)
    assert read({**PAIR, name: "by Ann"}, prompt="prompt", completion="completion"), "the user has decided"


@pytest.mark.parametrize("mark", ["False", "false", False])
def test_marks_of_bad_answers_may_be_texts(mark: Any):
    with pytest.raises(DataError, match=r"has the kto_tag false, which marks a bad answer, .* the column 'kto_tag'"):
        read({**PAIR, "kto_tag": mark})


@pytest.mark.parametrize("name", ["code", "summary", "solution", "targets"])
def test_a_text_with_a_code_or_a_summary_beside_it_is_not_read_alone(name: str):
    with pytest.raises(DataError, match=f"beside it its {name}, which would be left out"):
        read({"text": "Sort a list.", name: "sorted(a)"})


@pytest.mark.parametrize("answer", [{"from": "gpt", "value": "good"}, "good"])
def test_pairs_of_answers_to_a_chat_are_refused_by_their_names(answer: Any):
    turns = [{"from": "human", "value": "a film"}]
    with pytest.raises(DataError, match="chosen and rejected, to the messages in conversations, and a causal"):
        read({"conversations": turns, "chosen": answer, "rejected": answer})
    assert read({**CHAT, "chosen": "good", "rejected": "bad"})["messages"] == "messages"


def test_a_label_that_is_a_text_may_be_a_class_and_an_empty_part_of_a_question_is_nothing():
    assert read({**PAIR, "label": "False"}) == read(PAIR)
    for nothing in ("", " ", "None", "N/A", "a film \n"):
        assert read({**PAIR, "context": nothing}) == read(PAIR)
    chats = {"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:]}
    with pytest.raises(DataError, match="has 'by Ann' as its context, which would be left out"):
        read({**chats, "context": "by Ann"})
    assert read({**chats, "context": "a film"})


def test_marks_and_chats_in_columns_of_other_types_are_seen():
    """As polars writes them to Parquet files, and tables have chats."""
    large = Features({name: Value("large_string") for name in (*PAIR, "kto_tag")})
    with pytest.raises(DataError, match="marks a bad answer"):
        as_causal("train", Dataset.from_list([{**PAIR, "kto_tag": "false"}], features=large), COLUMNS["causal-lm"])
    with pytest.raises(DataError, match="to the messages in conversations"):
        read({"conversations": json.dumps([{"from": "human", "value": "a"}]), "chosen": "b", "rejected": "c"})


@pytest.mark.parametrize(("name", "good", "bad"), [("label", 0, False), ("kto_tag", True, "false")])
def test_marks_among_values_of_other_types_are_seen(name: str, good: Any, bad: Any):
    def rows(*marks: Any) -> Dataset:
        values = [{**PAIR, name: json.dumps(mark)} for mark in marks]
        return Dataset.from_list(values, Features({**dict.fromkeys(PAIR, Value("string")), name: Json()}))

    as_causal("train", rows(good, good), COLUMNS["causal-lm"])
    with pytest.raises(DataError, match=f"row 1 of train .* has the {name} false"):
        as_causal("train", rows(good, bad), COLUMNS["causal-lm"])


@pytest.mark.parametrize("name", ["context", "functions", "images"])
def test_nothing_among_values_of_other_types_is_nothing(name: str):
    values = [{**PAIR, name: json.dumps(value)} for value in ("", [], None, *(["film"] if name == "context" else []))]
    rows = Dataset.from_list(values, Features({**dict.fromkeys(PAIR, Value("string")), name: Json()}))
    assert as_causal("train", rows, COLUMNS["causal-lm"])[1]["prompt"] == "prompt"
