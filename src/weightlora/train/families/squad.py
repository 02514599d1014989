"""SQuAD's official scores, v1.1 and v2.0: exact match and F1 after normalisation, over the best of several answers."""

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    return float(normalize(answer) == normalize(gold))


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall over words. If a side has no words: 1 if both have none, else 0."""
    found, wanted = normalize(answer).split(), normalize(gold).split()
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def score_answers(
    answers: Sequence[str], golds: Sequence[Sequence[str]], no_answer: Sequence[float] | None = None
) -> dict[str, float]:
    """Scores of a data set, in percent, as the official script gives them.

    Args:
        answers: The predictions. An empty prediction says that the question has no answer.
        golds: All gold answers of each question. A question without an answer has none.
        no_answer: For each question, the score of having no answer minus the score of the best answer. If given,
            `best_f1` and `best_exact` are the scores at the best threshold, and `answers` has the best answer of
            every question, never an empty one.

    Returns:
        `exact_match` and `f1`. If some questions have no answer, also the scores of each kind (`HasAns_`, `NoAns_`).
    """
    # As the official script does: gold answers without a word count only if there is no other.
    kept = [[gold for gold in several if normalize(gold)] or [""] for several in golds]
    pairs = list(zip(answers, kept, strict=True))
    scores = {
        "exact_match": [max(exact_match(answer, gold) for gold in several) for answer, several in pairs],
        "f1": [max(f1(answer, gold) for gold in several) for answer, several in pairs],
    }
    result = {name: _percent(values) for name, values in scores.items()}
    has = [bool(several) for several in golds]
    if not all(has):
        for short, name in (("exact", "exact_match"), ("f1", "f1")):
            for kind, wanted in (("HasAns", True), ("NoAns", False)):
                result[f"{kind}_{short}"] = _percent(
                    [value for value, answerable in zip(scores[name], has, strict=True) if answerable == wanted]
                )
            if no_answer is not None:
                result[f"best_{short}"] = _best(scores[name], has, no_answer)
    return result


def _percent(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values) if values else 0.0


def _best(scores: Sequence[float], has: Sequence[bool], no_answer: Sequence[float]) -> float:
    """The best score over thresholds: questions below it are answered, all others are not."""
    current = best = float(len(has) - sum(has))  # nothing is answered
    for index in sorted(range(len(has)), key=lambda i: no_answer[i]):
        current += scores[index] if has[index] else -1.0
        best = max(best, current)
    return 100 * best / len(has)
