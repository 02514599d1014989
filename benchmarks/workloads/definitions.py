"""Definitions of nouns and verbs in the 38 largest of WordNet's semantic fields, such as food, motion or feeling.

Lexicographers wrote the definitions and filed each word in its field (the "supersense" of a word). All fields have the
same number of definitions. WordNet 3.1 is under Princeton's permissive licence.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from typing import Any

from weightlora.train.splitting import distinct, split

from ..archives import ARCHIVES, find_archive

FIELDS = {
    **{4: "act", 5: "animal", 6: "artifact", 7: "attribute", 8: "body", 9: "cognition", 10: "communication"},
    **{11: "event", 12: "feeling", 13: "food", 14: "group", 15: "location", 17: "object", 18: "person"},
    **{19: "phenomenon", 20: "plant", 21: "possession", 22: "process", 23: "quantity", 24: "relation", 25: "shape"},
    **{26: "state", 27: "substance", 28: "time", 29: "to body", 30: "to change", 31: "to think"},
    **{32: "to communicate", 33: "to compete", 34: "to consume", 35: "to touch", 36: "to create", 37: "to feel"},
    **{38: "to move", 39: "to perceive", 40: "to possess", 41: "to interact", 42: "to be"},
}
"""Number of a lexicographer's file -> name. The others, such as motives and weather, have too few definitions."""

CLASSES = tuple(FIELDS.values())
NUMBERS = {field: number for number, field in enumerate(FIELDS)}
PER_CLASS = 225
SPLIT_SIZES = {"test": 2000, "validation": 1000, "train": 5500}


def load_splits() -> dict[str, list[dict[str, Any]]]:
    """The rows `{"text": str, "label": int}` by split. `label` is the index in `CLASSES`.

    Raises:
        DataError: The archive is not there.
    """
    by_class: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(CLASSES))}
    for row in distinct(_rows()):
        by_class[row["label"]].append(row)
    drawn = (sorted(rows, key=_order)[:PER_CLASS] for rows in by_class.values())
    return split([row for rows in drawn for row in rows], SPLIT_SIZES)


def parse(line: str) -> dict[str, Any] | None:
    """A synset is numbers and words, a bar, and the definition with examples in quotes. None if it has no class."""
    data, _, gloss = line.partition(" | ")
    field = int(data.split(" ", 2)[1])
    definition = gloss.partition('; "')[0].strip()
    return {"text": definition, "label": NUMBERS[field]} if field in NUMBERS and definition else None


def _rows() -> Iterator[dict[str, Any]]:
    with tarfile.open(find_archive(ARCHIVES["wordnet"].name)) as archive:
        for part in ("noun", "verb"):
            file = archive.extractfile(f"package/dict/data.{part}")
            assert file is not None, "it is a regular file"
            for line in file.read().decode("utf-8").splitlines():
                row = None if line.startswith("  ") else parse(line)  # the licence is indented
                if row is not None:
                    yield row


def _order(row: dict[str, Any]) -> str:
    return hashlib.sha256(f"draw {row['text']}".encode()).hexdigest()
