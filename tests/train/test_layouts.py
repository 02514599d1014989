import pytest
from datasets import Dataset

from weightlora.errors import DataError
from weightlora.train.layouts import as_causal
from weightlora.train.tasks import COLUMNS

COLUMNS_READ = COLUMNS["causal-lm"]
SHAREGPT = [{"from": "system", "value": "be kind"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
]


@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_conversations_of_sharegpt_become_messages(name: str):
    rows, columns = as_causal("train", Dataset.from_list([{"id": 1, name: SHAREGPT}]), COLUMNS_READ)
    assert columns == {"messages": name, "tools": "tools"}
    assert rows[0][name] == CHAT and rows[0]["id"] == 1


def test_conversations_may_have_roles_already():
    given = Dataset.from_list([{"conversations": CHAT}])
    rows, columns = as_causal("train", given, COLUMNS_READ)
    assert columns["messages"] == "conversations" and rows[0]["conversations"] == CHAT


def test_messages_come_before_conversations_and_the_users_names_before_both():
    given = Dataset.from_list([{"messages": CHAT, "conversations": SHAREGPT, "chats": SHAREGPT[1:]}])
    rows, columns = as_causal("train", given, COLUMNS_READ)
    assert columns["messages"] == "messages" and rows[0]["messages"] == CHAT
    rows, columns = as_causal("train", given, {**COLUMNS_READ, "messages": "chats"})
    assert columns["messages"] == "chats" and rows[0]["chats"] == CHAT[1:]


def test_a_row_without_messages_is_left_for_the_check_of_rows():
    rows, _ = as_causal("train", Dataset.from_list([{"messages": SHAREGPT}, {"messages": None}]), COLUMNS_READ)
    assert rows[0]["messages"] == CHAT and rows[1]["messages"] is None


def test_rows_of_alpaca_become_prompts_and_completions():
    given = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Greet.", "input": "", "output": "hi"},
        {"instruction": None, "input": "x", "output": "y"},
    ]
    rows, columns = as_causal("train", Dataset.from_list(given), COLUMNS_READ)
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
    rows, _ = as_causal("train", Dataset.from_list(given), COLUMNS_READ)
    assert rows["conversations"][:] == [CHAT, CHAT[1:], CHAT], "one in the conversation counts"


def test_calls_in_sharegpts_way_are_refused():
    calls = [*SHAREGPT, {"from": "function_call", "value": '{"name": "look"}'}]
    with pytest.raises(DataError, match="train has messages from 'function_call', which chat templates do not know"):
        as_causal("train", Dataset.from_list([{"conversations": calls}]), COLUMNS_READ)


def test_rows_of_alpaca_may_have_a_system_prompt_and_a_history():
    row = {"instruction": "And 2 3?", "output": "5", "system": "Add.", "history": [["1 2?", "3"], ["2 2?", "4"]]}
    plain = {"instruction": "Greet.", "output": "hi", "system": None, "history": []}
    rows, _ = as_causal("train", Dataset.from_list([row, plain]), COLUMNS_READ)
    earlier = "".join(f"### Instruction:\n{q}\n\n### Response:\n{a}\n\n" for q, a in row["history"])
    assert rows["prompt"][:] == [
        f"Add.\n\n{earlier}### Instruction:\nAnd 2 3?\n\n### Response:\n",
        "### Instruction:\nGreet.\n\n### Response:\n",
    ]


@pytest.mark.parametrize(
    "row, named",
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, '{"prompt": "prompt", "completion": "chosen"}'),
        ({"chosen": "b", "rejected": "c"}, '{"text": "chosen"}'),
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
        ("prompt body", '{"text": "prompt"}'),
    ],
)
def test_a_prompt_is_not_proposed_without_its_answer(names: str, proposed: str):
    given = Dataset.from_list([dict.fromkeys(names.split(), "a")] * 2)
    with pytest.raises(DataError, match="neither messages") as refusal:
        as_causal("train", given, COLUMNS_READ)
    assert str(refusal.value).endswith(f"name the right one, as in --columns '{proposed}'.")
