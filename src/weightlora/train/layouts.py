"""The forms of data that a causal language model reads, and instruction data in the layouts of Alpaca and ShareGPT."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from datasets import Dataset, Features, Json, List, concatenate_datasets

from ..errors import DataError
from ..wording import shown
from .proposing import ANSWERS, QUESTIONS, example, example_for, one_object, pair_in, without, written
from .rows import name_row
from .unread import BEFORE, refuse_bad_answers, refuse_lost, refuse_media
from .verbatim import as_written, parsed

Columns = dict[str, str | None]
Form = tuple[tuple[str, ...], tuple[str, ...]]

FORMS: tuple[Form, ...] = (
    (("messages",), ("tools",)),
    (("prompt", "completion"), ()),
    (("text",), ()),
)
"""What each form needs, and what it may have as well."""
CHATS, PAIRS, TEXTS = FORMS

ALPACA = ("instruction", "output")
CHAT = "conversations"
"""ShareGPT's name for the messages. Some data sets have messages with roles there."""
ROLES = {"human": "user", "gpt": "assistant", "observation": "tool"}
"""ShareGPT's names of roles -> those of chat templates; others have the same name."""
CALL = "function_call"


def _is_turn(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


EARLIER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "system": (lambda value: isinstance(value, str), "a string"),
    "history": (
        lambda value: isinstance(value, list) and all(map(_is_turn, value)),
        "a list of pairs of strings, each a question and its answer",
    ),
}
"""What comes before a question, in columns of their own: what each row must have there, or nothing."""


def as_causal(
    split: str, rows: Dataset, columns: Columns, given: Collection[str] = ()
) -> tuple[Dataset, Columns, set[str | None]]:
    """The rows, which of their columns to read under which name, and the columns of before that they are made of.

    The names are `messages`, `prompt` and `completion`, or `text`.

    Prompts and completions that are lists of messages, as in TRL, become the messages of one chat. Rows of Alpaca
    (`instruction`, `input`, `output`) become prompts and completions, and conversations of ShareGPT (`from`, `value`)
    become messages. Both may have a `system` prompt, and Alpaca a `history` of earlier questions and answers, as in
    LLaMA-Factory. Lists of messages may be written as JSON.

    Args:
        split: Names the rows in errors.
        rows: As they were read.
        columns: Name in the family -> column.
        given: Names in the family for which the user named a column. They choose the form, whatever else there is.

    Raises:
        DataError: The rows have no form that is known.
    """
    has = rows.column_names
    wanted = [one for one in FORMS if not set(one[0]).isdisjoint(given)]
    if columns["messages"] == "messages" and "messages" not in has and CHAT in has:
        columns = {**columns, "messages": CHAT}
    alpaca = all(name in has for name in ALPACA)
    # Beside Alpaca's columns, `text` often has all of them in one, and no prompt to leave out of the loss.
    form = next(
        (
            one
            for one in wanted or ((CHATS, PAIRS) if alpaca else FORMS)
            if all(columns[name] in has for name in one[0])
        ),
        None,
    )
    if form is not None:
        return _in_form(form, split, rows, columns, bool(wanted))
    if wanted:  # the caller says which column is missing
        return rows, {name: columns[name] for name in wanted[0][0]}, set()
    if not alpaca:
        raise DataError(_no_form(split, rows))
    refuse_media(split, rows)
    refuse_bad_answers(split, rows)
    read: set[str | None] = {*ALPACA, "input", *EARLIER}
    refuse_lost(split, rows, read)
    return _from_alpaca(split, rows), {"prompt": "prompt", "completion": "completion"}, read


def _in_form(
    form: Form, split: str, rows: Dataset, columns: Columns, wanted: bool
) -> tuple[Dataset, Columns, set[str | None]]:
    """What `as_causal` returns for one of `FORMS`, whose columns are there. `wanted`: whether the user chose it."""
    if form is TEXTS and not wanted:
        _refuse_answer_beside(split, rows)
    if form is PAIRS and not wanted:  # who names columns has decided what is a part of a question
        refuse_lost(split, rows, [*columns.values(), *BEFORE], columns["prompt"])
    needed, optional = form
    read = {columns[name] for name in (*needed, *optional)}
    if form is PAIRS and all(_are_chats(rows, str(columns[name])) for name in needed):
        rows = _joined(rows, str(columns["prompt"]), str(columns["completion"]))
        form, columns, read = CHATS, {**columns, "messages": "messages"}, {*read, columns["tools"]}
    if form is CHATS:
        read.add("system")
        rows = _from_json(split, rows, str(columns["messages"]))
        _refuse_open(split, rows, str(columns["messages"]))
        refuse_media(split, rows, str(columns["messages"]))
        rows = _with_roles(split, rows, str(columns["messages"]))
    elif form is PAIRS:
        refuse_media(split, rows)
    if form is not TEXTS:
        refuse_bad_answers(split, rows)
        refuse_lost(split, rows, [*columns.values(), *read])
    return rows, {name: columns[name] for names in form for name in names}, read


def _no_form(split: str, rows: Dataset) -> str:
    """The error about rows of no known form, with the columns to name."""
    has = rows.column_names
    if "chosen" in has and "rejected" in has:
        chats = _are_chats(rows, "chosen")
        right = {"messages" if chats else "text": "chosen"}
        question = next((name for name in QUESTIONS if name in has), None)
        if question and _are_chats(rows, question) == chats:  # a chat after a text begins with that text
            right = {"prompt": question, "completion": "chosen"}
        return (
            f"{split} has pairs of answers, chosen and rejected, and a causal LM learns one of them: name it, as in "
            f"{written(right)}{without(has, right.values())}, or train on the pairs in a script, with TRL."
        )
    prompt, completion = pair_in(rows)
    talk = next((name for name in has if _are_chats(rows, name)), None)
    proposal = example("causal-lm", "messages", talk) if talk else example_for(rows, {"text": "text"}, {}, "text")
    if prompt and not talk:  # either alone would leave out the other
        proposal = example("causal-lm", "completion", completion or "your_column", {"prompt": prompt})
        proposal += without(has, (prompt, completion))
    return (
        f"{split} has neither messages, nor prompt and completion, nor text: it has {', '.join(has)}; name the right "
        f"one, as in {proposal}.{one_object(rows)}"
    )


def _refuse_answer_beside(split: str, rows: Dataset) -> None:
    """Raise a `DataError` where a text has an answer beside it, in a column of its own, that is not a part of it."""
    name = next((name for name in ANSWERS if name in rows.column_names), None)
    text, answer = (rows[0][one] if name and len(rows) else None for one in ("text", name))
    if isinstance(text, str) and isinstance(answer, str) and answer not in text:
        raise DataError(
            f"{split} has a text, and beside it its {name}, which would be left out: name both, as in "
            f"{example('causal-lm', 'completion', str(name), {'prompt': 'text'})}, or only the text, as in "
            f"{example('causal-lm', 'text', 'text')}."
        )


def _refuse_open(split: str, rows: Dataset, column: str) -> None:
    """Raise a `DataError` where chats end before two answers, of which one is preferred, as in LLaMA-Factory."""
    first = next((chat for chat in rows[column] if isinstance(chat, list) and chat), None)
    last = first[-1] if first else None
    asks = isinstance(last, dict) and last.get("role", last.get("from")) in ("user", "human")
    if asks and {"chosen", "rejected"} <= set(rows.column_names):
        raise DataError(
            f"{split} has pairs of answers, chosen and rejected, to the messages in {column}, and a causal LM learns "
            "one of them: append it to the messages, or train on the pairs in a script, with TRL."
        )


def _are_chats(rows: Dataset, column: str) -> bool:
    """Whether a column has lists of messages, by its first row that is not empty."""
    first = next((value for value in rows[column] if value), None)
    return isinstance(first, list) and isinstance(first[0], dict) and not first[0].keys().isdisjoint(("role", "from"))


def _joined(rows: Dataset, prompt: str, completion: str) -> Dataset:
    """The rows with `messages` in place of a prompt and a completion; None where one of the two is missing."""
    before, answers = (
        [as_written(value, rows.features[name]) for value in rows[name]] for name in (prompt, completion)
    )
    chats = [[*asked, *answer] if asked and answer else None for asked, answer in zip(before, answers, strict=True)]
    # As JSON, each message has the fields that it was written with, whatever those of others are.
    written = Dataset.from_dict({"messages": chats}, Features({"messages": List(Json())}))
    others = [name for name in rows.column_names if name not in ("messages", prompt, completion)]
    return concatenate_datasets([rows.select_columns(others), written], axis=1)


def _from_json(split: str, rows: Dataset, column: str) -> Dataset:
    """The rows with lists of messages where the column has texts: Parquet and CSV files often have chats as JSON.

    Raises:
        DataError: Something is neither a list nor such a text.
    """
    if isinstance(rows.features[column], List):
        return rows
    given = rows[column][:]
    chats = [parsed(value) for value in given]
    for row, chat in enumerate(chats):
        if not isinstance(chat, list | None):
            as_lines = (
                "save the rows as JSON Lines, as pandas does with to_json('rows.jsonl', orient='records', lines=True)"
            )
            raise DataError(
                f"{name_row(rows, split, row)} has {shown(chat)} as its {column}, which must be a list of messages, "
                f"or such a list written as JSON: {as_lines if isinstance(given[row], str) else 'fix the row'}."
            )
    if not any(isinstance(value, str) for value in given):
        return rows
    written = Dataset.from_dict({column: chats}, Features({column: List(Json())}))
    return concatenate_datasets([rows.remove_columns(column), written], axis=1)


def _with_roles(split: str, rows: Dataset, column: str) -> Dataset:
    """The rows with system prompts, and with `role` and `content` where ShareGPT has `from` and `value`."""
    systems = _beside(split, rows, "system") if column != "system" else [None] * len(rows)
    first = next((one for chat in rows[column] for one in chat or ()), None)
    sharegpt = isinstance(first, dict) and "from" in first
    if not sharegpt and not any(systems):
        return rows
    if any(isinstance(one, dict) and one.get("from") == CALL for chat in rows[column] for one in chat or ()):
        raise DataError(
            f"{split} has messages from {CALL!r}, which chat templates do not know: save the chats as messages with "
            "role, content and tool_calls."
        )
    # A row without messages stays as it is: the check of the rows names it.
    chats = [chat and _with_system(given, chat) for given, chat in zip(systems, rows[column], strict=True)]
    try:
        # Types say which fields a row does not have. Those of messages stay.
        features = None if sharegpt else Features({column: rows.features[column]})
        written = Dataset.from_dict({column: chats}, features)
    except (TypeError, ValueError) as error:  # of Arrow
        raise DataError(
            f"{split} has system prompts, which are strings, beside messages with other contents: put each prompt "
            "into the messages of its row, and drop the column 'system'."
        ) from error
    return concatenate_datasets([rows.remove_columns(column), written], axis=1)


def _with_system(given: str | None, chat: list[Any]) -> list[Any]:
    """The messages of a chat, after its system prompt unless they begin with one."""
    messages = [_message(one) for one in chat]
    begins = isinstance(messages[0], dict) and messages[0].get("role") == "system"
    return messages if begins or not given else [{"role": "system", "content": given}, *messages]


def _message(one: Any) -> Any:
    if not isinstance(one, dict) or "from" not in one:
        return one
    sender, marks = one["from"], {name: one[name] for name in ("weight", "train") if name in one}
    return {
        **marks,
        "role": one.get("role") or ROLES.get(sender, sender),
        "content": one.get("content") or one.get("value"),
    }


def _from_alpaca(split: str, rows: Dataset) -> Dataset:
    """A prompt with Alpaca's headings, and the output as its completion."""
    parts = (rows["instruction"], *(_beside(split, rows, name) for name in ("input", *EARLIER)))
    prompts = [_prompt(*row) for row in zip(*parts, strict=True)]
    return Dataset.from_dict({"prompt": prompts, "completion": rows["output"]})


def _prompt(instruction: Any, given: Any, system: str | None, history: list[list[str]] | None) -> str | None:
    if not isinstance(instruction, str):
        return None
    parts = [part for turn in history or () for part in zip(("Instruction", "Response"), turn, strict=True)]
    parts += [("Instruction", instruction), *([("Input", given)] if given else []), ("Response", "")]
    return "\n\n".join([*([system] if system else []), *(f"### {heading}:\n{text}" for heading, text in parts)])


def _beside(split: str, rows: Dataset, column: str) -> Sequence[Any]:
    """The values of a column of texts, or of one of `EARLIER`; None for each row where there is no such column."""
    if column not in rows.column_names:
        return [None] * len(rows)
    fits, what = EARLIER.get(column, EARLIER["system"])
    for row, value in enumerate(rows[column]):
        if value not in (None, "", []) and not fits(value):
            raise DataError(
                f"{name_row(rows, split, row)} has {shown(value)} as its {column}, which must be {what}, or empty: "
                f"fix the row, or rename the column {column!r} if it is something else."
            )
    values: Sequence[Any] = rows[column]
    return values
