"""The first training row, as the model gets it."""

from ..wording import printable, shortened
from .plan import Job
from .work import IGNORED

SHOWN_CHARACTERS = 240


def first_row(job: Job) -> tuple[str, str]:
    """The text of the first training row's tokens, and what the model is to learn from it, on one line each."""
    row, names = job.work.train[0], job.work.config.get("id2label", {})
    ids, labels = row["input_ids"], row.get("labels")

    def text(tokens: list[int]) -> str:
        return str(job.tokenizer.decode([token for token in tokens if token != IGNORED]))

    if row.get("start_positions") == row.get("end_positions") == 0:
        learned = "no answer in this part of the text"
    elif "start_positions" in row:
        learned = text(ids[row["start_positions"] : row["end_positions"] + 1])
    elif job.work.task_type == "TOKEN_CLS":
        learned = " ".join(names[label] for label in labels if label != IGNORED)
    elif labels is None or isinstance(labels, list):
        learned = text(ids if labels is None else labels)  # of packed texts, all is learned
    else:
        learned = str(names.get(labels, labels))
    return _line(text(ids)), _line(learned)


def _line(text: str) -> str:
    return shortened(printable(text.replace("\n", r"\n")), SHOWN_CHARACTERS)
