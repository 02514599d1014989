"""4,199 tweets with their mean human valence in [-4, 4], from the source distribution of vaderSentiment.

The wheel leaves the data out, so `make setup` downloads the source distribution and leaves it as it is. Hutto and
Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014.
"""

import html
import io
import tarfile
from typing import Any

from weightlora.train.splitting import distinct, split

from ..archives import directory, find_archive

__all__ = ["SPLIT_SIZES", "load_splits", "parse"]

SPLIT_SIZES = {"test": 1000, "validation": 500, "train": 2600}
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TWEETS = "hutto_ICWSM_2014/tweets_GroundTruth.txt"


def load_splits() -> dict[str, list[dict[str, Any]]]:
    """The rows `{"text": str, "label": float}` by split.

    Raises:
        DataError: The archive is not there.
    """
    path = find_archive(ARCHIVE, f"pip download --no-deps --no-binary :all: -d {directory()} vaderSentiment==3.3.2")
    with tarfile.open(path) as outer, tarfile.open(fileobj=io.BytesIO(_read(outer, INNER))) as inner:
        lines = _read(inner, TWEETS).decode("utf-8").splitlines()
    return split(distinct(parse(line) for line in lines), SPLIT_SIZES)


def parse(line: str) -> dict[str, Any]:
    """A line is an id, the mean valence and the text, with tabs in between; the text has HTML entities."""
    _, valence, text = line.split("\t", 2)
    return {"text": html.unescape(text.strip()), "label": float(valence)}


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is a regular file"
    return file.read()
