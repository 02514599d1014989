"""Chats: what a template leaves out or writes in another way is mended or refused, and never learned silently."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from weightlora.errors import DataError
from weightlora.train.families.chats import chat

ASKS = "{% if add_generation_prompt %}<s>assistant: {% endif %}"
PLAIN = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}" + ASKS
TEXTS_ONLY = (  # as those of Qwen3 and SmolLM3
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content if m.content is string else '' }}</s>{% endfor %}" + ASKS
)
OF_PARTS = (
    "{% for m in messages %}<s>{{ m.role }}: {% for p in m.content %}{{ p.text }}{% endfor %}</s>{% endfor %}" + ASKS
)
STRIPS = PLAIN.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
CALLS = "{% for m in messages %}<s>{{ m.role }}: {{ m.content or '' }}{% for c in m.tool_calls or [] %}ARGUMENTS"
CALLS += "{% endfor %}</s>{% endfor %}" + ASKS
AS_JSON = CALLS.replace("ARGUMENTS", "{{ c.function.arguments | tojson }}")
AS_TEXT = CALLS.replace("ARGUMENTS", "{{ '' + c.function.arguments }}")
AS_IT_IS = CALLS.replace("ARGUMENTS", "{{ c.function.arguments }}")

QUESTION = {"role": "user", "content": "a film"}
ANSWER = {"role": "assistant", "content": "good"}
CITY = {"city": 'Rome, "IT"'}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def call(given: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": given}}]}


class Characters:
    """A tokenizer of characters, with a chat template."""

    def __init__(self, template: str) -> None:
        self.template = template

    def apply_chat_template(self, messages: Any, tools: Any = None, tokenize: bool = True, **settings: Any) -> Any:
        settings.pop("return_dict", None)
        [text], _ = render_jinja_template([messages], tools=tools, chat_template=self.template, **settings)
        return [*map(ord, text)] if tokenize else text

    def __call__(self, text: str, **settings: Any) -> Any:
        return SimpleNamespace(input_ids=[*map(ord, text)])


def learned(template: str, *messages: dict[str, Any]) -> tuple[str, str]:
    """The prompt, and what is learned."""
    source: Any = SimpleNamespace(tokenizer=Characters(template))
    prompt, answer = chat(source, {"messages": [*messages]}, 500)
    return "".join(map(chr, prompt)), "".join(map(chr, answer))


@pytest.mark.parametrize("template", [PLAIN, TEXTS_ONLY, OF_PARTS])
@pytest.mark.parametrize("both", [False, True])
def test_texts_in_parts_are_learned_whatever_the_template_reads(template: str, both: bool):
    """Qwen3's template writes nothing for a list of parts, so the model learned to end at once."""
    question = {"role": "user", "content": parts("a ", "film")}
    answer = {"role": "assistant", "content": parts("good") if both or template is OF_PARTS else "good"}
    assert learned(template, question, answer) == ("<s>user: a film</s><s>assistant: ", "good</s>")


def test_parts_have_texts():
    for part in ({"type": "tool_use", "input": {}}, {"type": "text"}):
        with pytest.raises(DataError, match=r"the part \{.*and only texts are read: give it as one text\."):
            learned(OF_PARTS, QUESTION, {"role": "assistant", "content": [*parts("good"), part]})
    bedrock = [{"text": "good"}]
    assert learned(TEXTS_ONLY, QUESTION, {"role": "assistant", "content": bedrock})[1] == "good</s>"


@pytest.mark.parametrize(("template", "given"), [(AS_JSON, json.dumps(CITY)), (AS_JSON, CITY), (AS_TEXT, CITY)])
def test_the_arguments_of_calls_are_written_as_json(template: str, given: Any):
    """OpenAI has them as a text, which a template wrote as a text in a text."""
    assert json.loads(learned(template, QUESTION, call(given))[1].removesuffix("</s>")) == CITY


def test_arguments_that_are_a_text_stay_one_where_the_template_writes_it():
    """Also one that is no JSON, and numbers as they were written."""
    for given in ('{"a":  1.50}', "Rome"):
        assert learned(AS_IT_IS, QUESTION, call(given))[1] == f"{given}</s>"
    assert learned(AS_IT_IS, QUESTION, call(CITY))[1] == json.dumps(CITY) + "</s>"
    with pytest.raises(DataError, match="does not write the arguments of a call, 'say \"Rome\"', as JSON"):
        learned(AS_JSON, QUESTION, call('say "Rome"'))


def test_a_call_without_arguments_has_none_to_write():
    """The word None in a text is not such an argument, as Python writes it."""
    asked = {"role": "user", "content": "None?"}
    calls = {"role": "assistant", "content": "good", "tool_calls": [{"function": {"name": "f"}}]}
    assert learned(CALLS.replace("ARGUMENTS", "{{ c.function.name }}"), asked, calls)[1] == "goodf</s>"


def test_an_answer_that_the_template_does_not_write_whole_is_refused():
    thoughts = {"role": "assistant", "content": "<think> so </think>\n\ngood"}
    assert learned(PLAIN, QUESTION, thoughts)[1] == f"{thoughts['content']}</s>"
    with pytest.raises(
        DataError, match=r"does not write all of the answer .*: leave out of it what the template drops"
    ):
        learned(STRIPS, QUESTION, thoughts)
    assert learned(STRIPS, QUESTION, thoughts, QUESTION, ANSWER)[1] == "good</s>", "of earlier answers, it may"
    fewer_breaks = PLAIN.replace("{{ m.content }}", "{{ m.content.replace('\n\n', '\n') }}")
    assert learned(fewer_breaks, QUESTION, thoughts)[1] == "<think> so </think>\ngood</s>"


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_beside_an_answer_are_written_or_refused(name: str):
    answer = {**ANSWER, name: "so"}
    with pytest.raises(DataError, match=f"does not write the thoughts of the answer, '{name}', so"):
        learned(PLAIN, QUESTION, answer)
    template = PLAIN.replace("{{ m.content }}", f"{{{{ m.{name} or '' }}}}{{{{ m.content }}}}")
    assert learned(template, QUESTION, answer)[1] == "sogood</s>"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (
            [QUESTION, {**ANSWER, "function_call": {"name": "f"}}],
            "a message has a function_call, .*: save the call in",
        ),
        ([{"role": "user"}, ANSWER], "a message of the role 'user' has no content: write its text there"),
        ([QUESTION, {**ANSWER, "weight": 0}], r"marked as one that is not learned \(weight=0\)"),
        ([QUESTION, {**ANSWER, "train": False}], r"marked as one that is not learned \(train=False\)"),
    ],
)
def test_what_no_template_writes_or_nobody_should_learn_is_refused(messages: list[dict[str, Any]], message: str):
    with pytest.raises(DataError, match=message):
        learned(PLAIN, *messages)
    assert learned(PLAIN, {"role": "system", "content": ""}, QUESTION, {**ANSWER, "weight": 1})[1] == "good</s>"
