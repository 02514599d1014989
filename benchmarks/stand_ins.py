"""Writes models and data for `benchmarks/paper/*/sweep.yaml` to runs/paper: `python -m benchmarks.stand_ins`.

They stand in for those of the paper, and come from packages on PyPI.

Questions as in SQuAD: contexts are IMDb reviews that give the film a mark, such as "7/10" or "4 out of 10", and the
answer is the mark. In `ratings_v2`, every second context is a review without a mark. A rule finds the marks, so this
is easier than SQuAD. It has the same form, real text, and contexts that are longer than a window.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from weightlora.files import write_text
from weightlora.train.demo import load_reviews, minilm_path

from .workloads.smollm2 import GGUF, smollm2_path

PLACE = Path("runs") / "paper"
QUESTION = "What mark does the review give?"
MARK = re.compile(r"(?<![\d/.])(?:10|\d)(?:\.5)? ?(?:/|out of) ?(?:10|ten)\b(?!/)", re.IGNORECASE)
LINE_BREAK = re.compile(r"\s*<br />\s*")


def paragraph(text: str) -> dict[str, Any]:
    """A context and its question, with every mark in it as an answer; without any, the question has no answer."""
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    answers = [{"text": found[0], "answer_start": found.start()} for found in MARK.finditer(text)]
    return {
        "context": text,
        "qas": [{"id": name, "question": QUESTION, "answers": answers, "is_impossible": not answers}],
    }


def write_questions(path: Path, paragraphs: Iterable[dict[str, Any]]) -> None:
    """The official format, one article."""
    content = {"version": "1", "data": [{"title": "IMDb", "paragraphs": list(paragraphs)}]}
    write_text(path, json.dumps(content, ensure_ascii=False))


def write_ratings() -> None:
    for split, ours in (("train", "train"), ("validation", "test")):
        texts = [LINE_BREAK.sub(" ", row["text"]) for row in load_reviews("imdb")[ours]]
        paragraphs = [paragraph(text) for text in texts]
        marked = [p for p in paragraphs if p["qas"][0]["answers"]]
        unmarked = [p for p in paragraphs if not p["qas"][0]["answers"]][: len(marked)]
        write_questions(PLACE / "ratings" / f"{split}.json", marked)
        mixed = [p for pair in zip(marked, unmarked, strict=True) for p in pair]
        write_questions(PLACE / "ratings_v2" / f"{split}.json", mixed)


def write_sentences() -> None:
    """Rotten Tomatoes with SST-2's columns."""
    for split, ours in (("train", "train"), ("validation", "test")):
        path = PLACE / "rotten_tomatoes" / f"{split}.jsonl"
        rows = load_reviews("rotten_tomatoes")[ours]
        lines = (json.dumps({"sentence": row["text"], "label": row["label"]}) for row in rows)
        write_text(path, "\n".join(lines) + "\n")


def link(name: str, directory: Path) -> None:
    """The model under a path that is the same on every machine: results name it."""
    place = PLACE / name
    place.unlink(missing_ok=True)
    place.symlink_to(directory.resolve(), target_is_directory=True)


if __name__ == "__main__":
    PLACE.mkdir(parents=True, exist_ok=True)
    link("minilm", minilm_path())
    smollm2 = smollm2_path()
    assert (smollm2 / GGUF).is_file()
    link("smollm2", smollm2)
    write_ratings()
    write_sentences()
    for path in sorted(PLACE.glob("*/*.json*")):
        if not path.parent.is_symlink():
            print(f"{path}: {path.stat().st_size:,} bytes")
