from pathlib import Path

import pytest
from recipes import BAD, GOOD, arguments, family_arguments, files_of, write_rows

from weightlora.train import parse
from weightlora.train.plan import prepare
from weightlora.train.preview import first_row

DULL, FINE = (f"{text} number 0" for text in (BAD, GOOD))


@pytest.mark.parametrize(
    ("task", "text", "learned"),
    [
        ("cola", f"[CLS] {DULL}[SEP]", "unacceptable"),
        ("stsb", f"[CLS] {DULL}[SEP] {FINE}[SEP]", "0.0"),
        (
            "squad",
            "[CLS] [UNK]ho made the film?[SEP] The film number 0 was long and dull and empty. Ann made [SEP]",
            "Ann",
        ),
        ("xsum", f"<s>{f'{FINE}. ' * 4}</s>", "<s>film number 0</s>"),
        ("token-classification", "[CLS] Ann made films[SEP]", "PER O O"),
        ("causal-lm", f"<s>{GOOD}</s>", f"{GOOD}</s>"),
        ("sst2-verbalised", f"<s>Review: {DULL}\\nSentiment: negative", " negative"),
    ],
)
def test_the_first_row_of_each_family(world: Path, tmp_path: Path, task: str, text: str, learned: str):
    assert first_row(prepare(parse(family_arguments(world, task, tmp_path)))) == (text, learned)


def test_of_a_chat_the_last_answer_is_learned_and_of_packed_texts_all(world: Path, tmp_path: Path):
    chat = [{"role": "user", "content": "film?"}, {"role": "assistant", "content": "fine"}]
    rows = write_rows(tmp_path / "rows.jsonl", [{"messages": chat}])
    job = prepare(parse(arguments(world, "causal-lm", "llama", tmp_path, *files_of(rows))))
    assert first_row(job) == ("<s>user: film?</s><s>assistant: fine</s>", "fine</s>")
    rows = write_rows(tmp_path / "texts.jsonl", [{"text": GOOD}] * 40)
    job = prepare(parse(arguments(world, "causal-lm", "llama", tmp_path, *files_of(rows), "--packing")))
    text, learned = first_row(job)
    assert text == learned and text.startswith(f"<s>{GOOD}</s><s>")


def test_a_long_text_is_shortened_and_codes_for_the_terminal_are_escaped(world: Path, tmp_path: Path):
    rows = [{"text": f"a\x1b[31m\u202e {'film ' * 500}end", "label": label} for label in ("fine", "dull")]
    rows = write_rows(tmp_path / "rows.jsonl", rows)
    task = arguments(world, "text-classification", "deberta", tmp_path, *files_of(rows), "--max_length", 512)
    text, learned = first_row(prepare(parse(task)))
    assert text.isprintable() and len(text) < 200 and "film film film..." in text and learned == "fine"


def test_a_part_of_a_text_without_the_answer_says_so(world: Path, tmp_path: Path):
    context = "Ann made films. " * 8 + "Bo"
    answers = {"text": ["Bo"], "answer_start": [len(context) - 2]}
    rows = [{"id": "1", "question": "who?", "context": context, "answers": answers}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    more = [*files_of(path), "--max_length", 24, "--stride", 4]
    job = prepare(parse(arguments(world, "question-answering", "deberta", tmp_path, *more)))
    assert len(job.work.train) > 1 and first_row(job)[1] == "no answer in this part of the text"
