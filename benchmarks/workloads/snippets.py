"""Short texts with their mean human valence in [-4, 4], from the source distribution of vaderSentiment.

There are 4,199 tweets, 3,708 sentences of product reviews (Amazon) and 5,190 sentences of editorials (New York Times).
The wheel leaves the data out, so `make setup` downloads the source distribution and leaves it as it is. Hutto and
Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014.
"""

import html
import io
import tarfile
from dataclasses import dataclass
from typing import Any

from weightlora.train.splitting import distinct, split

from ..archives import directory, find_archive
from .dealing import deal_groups

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"


@dataclass(frozen=True)
class _Source:
    """One of the files.

    Attributes:
        file: Its name, without what all names end in.
        sizes: Split -> number of rows.
        documents: Whether ids are `<document>_<sentence>`. No document is in two splits.
    """

    file: str
    sizes: dict[str, int]
    documents: bool = True


SOURCES = {
    "tweets": _Source("tweets", {"test": 1000, "validation": 500, "train": 2600}, documents=False),
    "products": _Source("amazonReviewSnippets", {"test": 1000, "validation": 500, "train": 2100}),
    "editorials": _Source("nytEditorialSnippets", {"test": 1000, "validation": 500, "train": 3500}),
}


def load_splits(name: str) -> dict[str, list[dict[str, Any]]]:
    """The rows `{"text": str, "label": float, "document": str}` by split.

    Args:
        name: One of `SOURCES`.

    Raises:
        DataError: The archive is not there.
    """
    source = SOURCES[name]
    command = f"pip download --no-deps --no-binary vaderSentiment -d {directory()} vaderSentiment==3.3.2"
    path = find_archive(ARCHIVE, command)
    with tarfile.open(path) as outer, tarfile.open(fileobj=io.BytesIO(_read(outer, INNER))) as inner:
        lines = _read(inner, f"hutto_ICWSM_2014/{source.file}_GroundTruth.txt").decode("utf-8").splitlines()
    rows = distinct(parse(line) for line in lines)
    return deal_groups(rows, "document", source.sizes) if source.documents else split(rows, source.sizes)


def parse(line: str) -> dict[str, Any]:
    """A line is an id, the mean valence and the text, with tabs in between; the text has HTML entities."""
    identifier, valence, text = line.split("\t", 2)
    return {
        "text": html.unescape(text.strip()),
        "label": float(valence),
        "document": identifier.partition("_")[0],
    }


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is a regular file"
    return file.read()
