"""Chats: the prompt and the answer that a chat template makes of messages, and what it leaves out of them silently."""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ...errors import DataError
from ...wording import first_line, shown
from ..rows import head_of, tail_of
from ..verbatim import parsed
from ..work import Source

Tokens = tuple[list[int], list[int]]
"""Of a prompt, and of what is learned after it."""

Messages = list[dict[str, Any]]
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names that the thoughts before an answer have, beside its content."""
TOOLS = "the tools"


def chat(source: Source, row: dict[str, Any], length: int) -> Tokens:
    """The tokens of the messages before the last one, and those of that one; no tokens if it is no answer.

    Args:
        source: Its tokenizer has a chat template.
        row: With `messages`, and perhaps `tools`.
        length: Tokens that are used. Texts that are far longer are shortened.

    Raises:
        DataError: The template cannot write the messages, or leaves something out of them.
    """
    render: Any = source.tokenizer.apply_chat_template
    messages, tools = row["messages"], parsed(row.get("tools")) or None
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or not (_says(last.get("content")) or last.get("tool_calls")):
        return [], []
    _check_messages(messages)
    shortened = [_shortened(source, message, tail_of, length) for message in messages[:-1]]
    shortened.append(_shortened(source, messages[-1], head_of, length))
    try:
        messages = _as_read(shortened, tools, partial(render, tokenize=False))
        left_out = _unwritten(messages, tools, partial(render, tokenize=False))
        before = messages[:-1]
        prompt = render(before, tools=tools, add_generation_prompt=True, return_dict=False)
        whole = render(messages, tools=tools, return_dict=False)
    except DataError:
        raise
    except Exception as error:  # templates are programs, and each refuses messages in its own way
        raise DataError(
            f"the chat template cannot write the messages {shown(shortened)}: {first_line(error)}; fix the row, or "
            "leave it out."
        ) from error
    if left_out is not None:
        how = " with --columns '{\"tools\": null}'" if left_out == TOOLS else ""
        raise DataError(
            f"the chat template does not write {left_out}, so the model would not see them: give a model whose "
            f"template does, or leave them out{how}."
        )
    if whole[: len(prompt)] == prompt:
        return prompt, whole[len(prompt) :]
    # The last token of the prompt may be another one before an answer that begins with a line break.
    asked = render(before, tools=tools, add_generation_prompt=True, tokenize=False)
    written = render(messages, tools=tools, tokenize=False)
    if not written.startswith(asked):
        raise DataError(
            "the chat template changes the prompt when an answer is added, so the answer cannot be separated from it: "
            "give prompt and completion instead of messages."
        )
    return prompt, source.tokenizer(written[len(asked) :], add_special_tokens=False).input_ids


def _check_messages(messages: Messages) -> None:
    """Raise a `DataError` for a message with something in it that no chat template writes."""
    for message in messages:
        role, content = message["role"], message.get("content")
        if message.get("function_call"):
            raise DataError(
                "a message has a function_call, which chat templates do not know: save the call in its tool_calls."
            )
        if content is None and not message.get("tool_calls"):
            raise DataError(f"a message of the role {role!r} has no content: write its text there, or leave it out.")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part.get("text"), str):
                raise DataError(f"a message has the part {shown(part)}, and only texts are read: give it as one text.")
    last = messages[-1]
    for name in ("weight", "train"):
        if last.get(name, 1) == 0:
            raise DataError(
                f"its last message is marked as one that is not learned ({name}={last[name]!r}), and only the last "
                "one is learned: leave the row out, or that message."
            )


def _as_read(messages: Messages, tools: Any, write: Callable[..., str]) -> Messages:
    """The messages in a form of which the template writes everything.

    Raises:
        DataError: There is no such form.
        Exception: The template's own, if it can write none.
    """
    failed: Exception | None = None
    for form in _forms(messages):
        try:
            text = write(form, tools=tools)
        except Exception as error:
            failed = failed or error
            continue
        unread = _unread(form, text)
        if unread is None:
            return form
        failed = DataError(unread)
    assert failed is not None
    raise failed


def _forms(messages: Messages) -> list[Messages]:
    """The messages as they are, with their texts in one instead of in parts, and with objects and JSON exchanged."""
    forms = [messages]
    for change in (_in_one, _exchanged):
        forms += [other for form in forms if (other := [change(message) for message in form]) != form]
    return forms


def _in_one(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": "".join(part["text"] for part in content)} if isinstance(content, list) else message


def _exchanged(message: dict[str, Any]) -> dict[str, Any]:
    """The arguments of calls as objects where they are JSON, as OpenAI has them, and as JSON where they are objects.

    Some templates write what they get, and others write it as JSON.
    """
    calls = []
    for call in message.get("tool_calls") or ():
        given = _arguments(call)
        other = parsed(given) if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        if given is None or not isinstance(other, dict | str):
            return message
        function = call.get("function", call)
        changed = {**function, "arguments": other}
        calls.append({**call, "function": changed} if "function" in call else changed)
    return {**message, "tool_calls": calls} if calls else message


def _arguments(call: Any) -> Any:
    function = call.get("function", call) if isinstance(call, dict) else None
    return function.get("arguments") if isinstance(function, dict) else None


def _unread(messages: Messages, text: str) -> str | None:
    """What a template makes of the messages in another way than they say, as a sentence; None if nothing."""
    bare = _bare(text)
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and (
            str(content) in text or not all(_bare(part["text"]) in bare for part in content)
        ):
            return (
                f"the chat template does not read the parts of a message, {shown(content)}: give its content as one "
                "text."
            )
        for given in filter(None, map(_arguments, message.get("tool_calls") or ())):
            quoted = json.dumps(given, ensure_ascii=False)
            wrong = quoted[1:-1] if isinstance(given, str) else str(given)  # a text in quotes, or an object of Python
            right = given if isinstance(given, str) else quoted
            if wrong in text and right not in text:
                return (
                    f"the chat template does not write the arguments of a call, {shown(given)}, as JSON: give a model "
                    "whose template does."
                )
    answer = messages[-1].get("content")
    if isinstance(answer, str) and _bare(answer) not in bare:
        return (
            f"the chat template does not write all of the answer {shown(answer)}, so the model would not learn it: "
            "leave out of it what the template drops, such as thoughts in <think> and </think>, or give prompt and "
            "completion instead of messages."
        )
    return None


def _bare(text: str) -> str:
    """A text without its spaces and line breaks, which templates add and remove."""
    return "".join(text.split())


def _unwritten(messages: Messages, tools: Any, write: Callable[..., str]) -> str | None:
    """What the template leaves out of a chat without a word: many know no tools, and some no system prompts."""
    changed: dict[str, tuple[Messages, Any]] = {}  # a chat that is written otherwise, if all is written
    if tools:
        changed[TOOLS] = messages, None
    if any(message.get("tool_calls") for message in messages):
        changed["the calls of tools"] = [_without(message, "tool_calls") for message in messages], tools
    for name in REASONING:
        if messages[-1].get(name):
            changed[f"the thoughts of the answer, {name!r}"] = [*messages[:-1], _without(messages[-1], name)], tools
    roles = {message["role"] for message in messages if isinstance(message.get("content"), str)}
    for role in sorted(roles - {"user", "assistant"}):  # every template writes these two
        more = [{**one, "content": f"{one.get('content')} more"} if one["role"] == role else one for one in messages]
        changed[f"messages of the role {role!r}"] = more, tools
    if not changed:
        return None
    text = write(messages, tools=tools)
    for what, (other, used) in changed.items():
        with suppress(Exception):  # it has read what is not there now
            if write(other, tools=used) == text:
                return what
    return None


def _without(message: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != name}


def _says(content: Any) -> bool:
    """Whether a message has content: a text that is not empty, or a part that is not an empty text."""
    if not isinstance(content, list):
        return bool(content)
    return any(not isinstance(part, dict) or part.get("type") != "text" or part.get("text") for part in content)


def _shortened(source: Source, message: dict[str, Any], part_of: Any, length: int) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": part_of(source.tokenizer, content, length)} if isinstance(content, str) else message
