import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from recipes import BAD, GOOD, arguments, family_arguments, files_of, write_parquet, write_rows
from tokenizers import processors
from transformers import AutoConfig, AutoTokenizer, BertConfig

from weightlora.errors import ModelError
from weightlora.train import fit, parse, prepare
from weightlora.train.families.causal import check_causal, first_token

CHATS = [
    {"messages": [{"role": "user", "content": "a film"}, {"role": "assistant", "content": text}]}
    for text in (GOOD, BAD)
]


FORMS = {
    "messages": CHATS,
    "completion": [{"prompt": "Review: ", "completion": text} for text in (GOOD, BAD)],
    "text": [{"text": text} for text in (GOOD, BAD)],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "a film"}, {"from": "gpt", "value": text}]}
        for text in (GOOD, BAD)
    ],
    "alpaca": [{"instruction": "Review", "input": "", "output": text} for text in (GOOD, BAD)],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_causal_lm_learns_the_answer_alone(world: Path, tmp_path: Path, form: str):
    file = tmp_path / "rows.parquet"
    write_parquet(file, FORMS[form] * 4)
    more = ["--train_file", file, "--validation_file", file]
    job = prepare(parse(arguments(world, "causal-lm", "llama", tmp_path / "out", *more)))
    batch = job.work.collate([job.work.train[i] for i in range(2)])
    learned = [job.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert learned == [f"{text}</s>" for text in (GOOD, BAD)]
    result = fit(job)
    found = result.metrics["validation"]
    assert found["perplexity"] == pytest.approx(2.718281828 ** found["held_out_loss"], rel=0.02)


def function(name: str, **properties: str) -> dict:
    described = {key: {"type": kind} for key, kind in properties.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": described}}}


def call(name: str, **values: object) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": values}}


def asks(question: str, used: dict, *, ends: str | None) -> list[dict]:
    """A chat in which the assistant calls a tool, and ends with an answer or with the call."""
    begins = [{"role": "user", "content": question}, {"role": "assistant", "tool_calls": [used]}]
    more = [{"role": "tool", "content": "seen"}, {"role": "assistant", "content": ends}]
    return [*begins, *(more if ends else [])]


TOOL_CHATS = [
    {
        "messages": asks("Rome?", call("weather", city="Rome"), ends="fine"),
        "tools": [function("weather", city="string")],
    },
    {
        "messages": asks("Sum?", call("add", a=7.9007, b=2), ends=None),
        "tools": [function("add", a="number", b="integer")],
    },
    {"messages": CHATS[0]["messages"], "tools": None},
]
TOOL_TEMPLATE = (
    "{% for t in tools or [] %}{{ t.function.parameters.properties | tojson }}{% endfor %}"
    "{% for m in messages %}<s>{{ m.role }}<s>{% if 'tool_calls' in m %}"
    "{{ m.tool_calls[0].function.arguments | tojson }}{% else %}{{ m.content }}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant<s>{% endif %}"
)


@pytest.mark.parametrize("forms", [("jsonl", "parquet"), ("parquet", "text"), ("text", "jsonl")])
def test_a_chat_has_its_tools_and_its_calls_and_no_fields_of_other_rows(
    world: Path, tmp_path: Path, forms: tuple[str, str]
):
    """Arrow gives the rows of a file the fields of all of them, and each file has types of its own."""
    files: list[object] = []
    for split, form in zip(("train", "validation"), forms, strict=True):
        file = tmp_path / f"{split}.{'parquet' if form == 'parquet' else 'jsonl'}"
        rows = [{**row, "tools": json.dumps(row["tools"])} for row in TOOL_CHATS] if form == "text" else TOOL_CHATS
        (write_parquet if form == "parquet" else write_rows)(file, rows)
        files += [f"--{split}_file", file]
    shutil.copytree(world / "llama", tmp_path / "llama")
    (tmp_path / "llama" / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    given = arguments(tmp_path, "causal-lm", "llama", tmp_path / "out", *files, "--max_length", "128")
    job = prepare(parse(given))
    render = job.tokenizer.apply_chat_template
    expected = [render(row["messages"], tools=row["tools"], return_dict=False) for row in TOOL_CHATS]
    assert max(map(len, expected)) < 128
    assert [row["input_ids"] for row in job.work.train] == expected
    assert [row["input_ids"] for row in job.work.evaluation["validation"]] == expected


LEFT_OUT = {
    "the tools": {**TOOL_CHATS[2], "tools": [function("add", a="integer")]},
    "the calls of tools": {"messages": TOOL_CHATS[1]["messages"]},
    "messages of the role 'system'": {"messages": [{"role": "system", "content": "kind"}, *CHATS[0]["messages"]]},
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_the_chat_template_leaves_out_is_an_error_of_its_row(
    world: Path, rows: Path, tmp_path: Path, refused, what: str
):
    """Else the model would learn to say nothing in place of a call, or never see its tools."""
    shutil.copytree(world / "llama", tmp_path / "llama")
    template = "{% for m in messages if m.role != 'system' %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    prompt = "{% if add_generation_prompt %}<s>assistant: {% endif %}"
    (tmp_path / "llama" / "chat_template.jinja").write_text(template + prompt)
    write_rows(rows, [CHATS[0], LEFT_OUT[what]])
    message = refused("--task", "causal-lm", "--model", tmp_path / "llama", "--pad_token", "</s>", *files_of(rows))
    assert message == (
        f"row 1 of train (counted from 0): the chat template does not write {what}, so the model would not see "
        "them: give a model whose template does, or leave them out"
        + (""" with --columns '{"tools": null}'.""" if what == "the tools" else ".")
    )


def test_an_answer_that_the_template_does_not_append_is_an_error_of_its_row(
    world: Path, rows: Path, tmp_path: Path, refused
):
    """Templates of reasoning models drop what was thought before the last question: here, all but two messages."""
    shutil.copytree(world / "llama", tmp_path / "llama")
    template = "{% for m in messages[-2:] %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    (tmp_path / "llama" / "chat_template.jinja").write_text(template)
    longer = [{"role": "user", "content": "b"}, {"role": "user", "content": "c"}, *CHATS[0]["messages"]]
    write_rows(rows, [*CHATS, {"messages": longer}])
    message = refused("--task", "causal-lm", "--model", tmp_path / "llama", "--pad_token", "</s>", *files_of(rows))
    assert message.startswith("row 2 of train (counted from 0): the chat template changes the prompt")


def test_an_answer_is_learned_whole_where_it_changes_the_last_token_of_its_prompt(
    world: Path, rows: Path, tmp_path: Path
):
    """As a line break does in many models that end the prompt with one. Here, a space begins the first word."""
    shutil.copytree(world / "llama", tmp_path / "llama")
    template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    prompt = "{% if add_generation_prompt %}<s>assistant: {% endif %}"
    (tmp_path / "llama" / "chat_template.jinja").write_text(template + prompt)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": f"film and {GOOD}"}]
    write_rows(rows, [{"messages": chat}])
    job = prepare(parse(arguments(tmp_path, "causal-lm", "llama", tmp_path / "out", *files_of(rows))))
    whole = job.tokenizer.apply_chat_template(chat, return_dict=False)
    [row] = job.work.train
    assert row["input_ids"] != whole and job.tokenizer.decode(row["input_ids"]) == job.tokenizer.decode(whole)
    assert job.tokenizer.decode([label for label in row["labels"] if label != -100]) == f"film and {GOOD}</s>"


@pytest.mark.parametrize(("words", "asked"), [(1, None), (40, 8)], ids=["short prompt", "long prompt"])
def test_an_answer_that_is_too_long_leaves_up_to_half_of_the_room_to_its_prompt(
    world: Path, tmp_path: Path, words: int, asked: int | None
):
    row = {"prompt": " ".join([GOOD] * words), "completion": " ".join([BAD] * 40)}
    write_rows(file := tmp_path / "rows.jsonl", [row, {**row, "completion": f"{row['completion']} {GOOD}"}])
    given = arguments(world, "causal-lm", "llama", tmp_path / "out", *files_of(file), "--max_length", "16")
    job = prepare(parse([*given, "--pad_to_max_length", "false"]))
    prompt = job.tokenizer(row["prompt"], add_special_tokens=False).input_ids
    answer = job.tokenizer(row["completion"], add_special_tokens=False).input_ids
    learned = job.work.train[0]
    asked = asked or len(first_token(job.tokenizer)) + len(prompt)
    assert asked < 16 and learned["input_ids"][asked:] == answer[: 16 - asked]
    [begin] = first_token(job.tokenizer)  # where a text is generated, it begins the prompt
    assert learned["input_ids"][:asked] == [begin, *prompt[1 - asked :]]
    assert learned["labels"] == [-100] * asked + answer[: 16 - asked]


@pytest.mark.parametrize("form", ["text", "messages"])
def test_padding_changes_no_loss(world: Path, tmp_path: Path, form: str):
    """The first token of a text has only padding before it, and only where another text of its batch is longer."""
    file = tmp_path / "rows.jsonl"
    texts = [" ".join([GOOD] * (1 + i % 3)) for i in range(6)]
    write_rows(file, [{"text": text} for text in texts])
    if form != "text":
        write_rows(file, [FORMS[form][i % 2] for i in range(6)])
    losses = []
    for more in (["1"], ["6"], ["6", "--pad_to_max_length"]):
        more = ["--method", "lora", *files_of(file), "--per_device_eval_batch_size", *more]
        job = prepare(parse(arguments(world, "causal-lm", "llama", tmp_path / "out", *more, "--max_steps", "1")))
        job.recipe.training.learning_rate = 0.0
        losses.append(fit(job, write=False).metrics["validation"]["held_out_loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_texts_may_be_packed_into_blocks(world: Path, tmp_path: Path):
    given = [*family_arguments(world, "causal-lm", tmp_path), "--packing", "--max_length", "16"]
    job = prepare(parse(given))
    tokenizer, rows = job.tokenizer, [GOOD, BAD] * 4
    stream = [token for text in rows for token in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    assert [row["input_ids"] for row in job.work.train] == [stream[i : i + 16] for i in range(0, len(stream) - 15, 16)]
    found = fit(job, write=False).metrics["validation"]
    assert found["perplexity"] == pytest.approx(np.exp(found["held_out_loss"]))


def test_empty_texts_are_left_out_of_packed_blocks(world: Path, tmp_path: Path):
    """As in wikitext, where a third of the rows are empty: the model learned runs of ends of texts."""
    given = [{"text": text} for text in (GOOD, "", "", BAD) * 4]
    file = write_rows(tmp_path / "rows.jsonl", given)
    more = ["--train_file", file, "--validation_file", file, "--packing", "--max_length", "4"]
    job = prepare(parse(arguments(world, "causal-lm", "llama", tmp_path / "out", *more)))
    stream = [token for row in job.work.train for token in row["input_ids"]]
    end = job.tokenizer.eos_token_id
    assert stream.count(end) > 3 and not any(one == other == end for one, other in pairwise(stream))


def test_a_chat_may_have_an_empty_text_as_its_tools(world: Path, tmp_path: Path):
    file = write_rows(tmp_path / "rows.jsonl", [{**row, "tools": ""} for row in CHATS] * 2)
    more = ["--train_file", file, "--validation_file", file]
    job = prepare(parse(arguments(world, "causal-lm", "llama", tmp_path / "out", *more)))
    assert len(job.work.train) == 4


def test_a_tokenizer_that_ends_its_texts_itself_gives_one_end(world: Path, tmp_path: Path):
    model = shutil.copytree(world / "llama", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    ends = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    both = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.backend_tokenizer.post_processor = both
    tokenizer.save_pretrained(model)
    given = [*family_arguments(world, "causal-lm", tmp_path), "--packing", "--max_length", "4", "--model", str(model)]
    job = prepare(parse(given))
    stream = [token for row in job.work.train for token in row["input_ids"]]
    assert job.tokenizer(GOOD).input_ids[-1] == tokenizer.eos_token_id, "it adds an end"
    first, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert stream.count(end) >= 6 and all(after == first for one, after in pairwise(stream) if one == end)


@pytest.mark.parametrize("form", [["--task", "causal-lm"], ["--task", "causal-lm", "--packing"], ["--verbalised"]])
def test_an_encoder_is_refused(world: Path, rows: Path, tmp_path: Path, refused, form: list[str]):
    """Its tokens see those that they are to predict, so whatever is chosen by the loss means nothing."""
    BertConfig(vocab_size=99, max_position_embeddings=128).save_pretrained(tmp_path / "bert")
    write_rows(rows, [{"text": text, "label": i} for i, text in enumerate((GOOD, BAD))] * 4)
    given = ["--tokenizer", world / "deberta", "--max_length", 64, "--task", "text-classification", *form]
    message = refused("--model", tmp_path / "bert", *files_of(rows), *given)
    assert message == "bert models see the tokens that a causal LM predicts: give a decoder, or another --task."


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "xlm", "xlm-roberta", "camembert"])
def test_encoders_are_refused_and_decoders_of_the_same_kind_are_not(kind: str):
    with pytest.raises(ModelError, match=f"^{kind} models see the tokens"):
        check_causal(AutoConfig.for_model(kind))
    check_causal(AutoConfig.for_model(kind, **{"causal" if kind == "xlm" else "is_decoder": True}))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "opt", "bart", "mbart", "mvp", "marian", "trocr"])
def test_decoders_are_no_encoders(kind: str):
    check_causal(AutoConfig.for_model(kind))
