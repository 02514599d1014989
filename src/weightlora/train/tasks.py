"""The registry of tasks: the family that handles each, its data set, the names of its columns, and its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import ConfigError
from ..values import check_known

GLUE = "nyu-mll/glue"
COLUMNS = {
    "text-classification": {"text": "text", "pair": "pair", "label": "label"},
    "regression": {"text": "text", "pair": "pair", "label": "label"},
    "token-classification": {"tokens": "tokens", "tags": "tags"},
    "question-answering": {"id": "id", "question": "question", "context": "context", "answers": "answers"},
    "seq2seq": {"source": "source", "target": "target"},
    "causal-lm": {name: name for name in ("text", "prompt", "completion", "messages", "tools")},
}
"""What each family reads -> the default name of that column. A task or the user may give another name."""
OPTIONAL = {"pair", "tools"}


@dataclass(frozen=True)
class TaskInfo:
    """One entry of the registry.

    Attributes:
        family: Key in `COLUMNS`.
        columns: Name in the family -> column of the data. None if the data has no such column.
        dataset, config: Id and configuration on the hub.
        evaluation: Splits that are evaluated.
        metrics: Names of the reported metrics. The first one is compared.
        class_names: In the order of the data set's class numbers.
        prompt, words: For the verbalised form, a template with `text` and `pair`, and an answer for each class.
    """

    family: str
    columns: Mapping[str, str | None] = field(default_factory=dict)
    dataset: str | None = None
    config: str | None = None
    evaluation: tuple[str, ...] = ("validation",)
    metrics: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    prompt: str | None = None
    words: tuple[str, ...] = ()


def _glue(
    config: str,
    metrics: tuple[str, ...],
    texts: tuple[str, str | None],
    labels: tuple[str, ...] = (),
    prompt: str | None = None,
    words: tuple[str, ...] = (),
    family: str = "text-classification",
) -> TaskInfo:
    columns = {"text": texts[0], "pair": texts[1], "label": "label"}
    return TaskInfo(family, columns, GLUE, config, ("validation",), metrics, labels, prompt, words)


YES_NO = (" Yes", " No")
SENTENCES = ("sentence1", "sentence2")
FOLLOWS = "{text}\nQuestion: {pair} True or False?\nAnswer:"
SAME = "Sentence 1: {text}\nSentence 2: {pair}\nQuestion: do both say the same?\nAnswer:"
MNLI = _glue(
    "mnli",
    ("accuracy",),
    ("premise", "hypothesis"),
    ("entailment", "neutral", "contradiction"),
    "{text}\nQuestion: {pair} True, False or Neither?\nAnswer:",
    (" True", " Neither", " False"),
)

TASKS: dict[str, TaskInfo] = {
    "text-classification": TaskInfo("text-classification", metrics=("accuracy", "f1_macro")),
    "regression": TaskInfo("regression", metrics=("pearson", "spearman")),
    "token-classification": TaskInfo("token-classification", metrics=("f1", "precision", "recall", "accuracy")),
    "question-answering": TaskInfo("question-answering", metrics=("f1", "exact_match")),
    "seq2seq": TaskInfo("seq2seq", metrics=("rouge2", "rouge1", "rougeL")),
    "causal-lm": TaskInfo("causal-lm", metrics=("perplexity", "token_accuracy")),
    "cola": _glue(
        "cola",
        ("matthews",),
        ("sentence", None),
        ("unacceptable", "acceptable"),
        "Sentence: {text}\nQuestion: is this grammatical?\nAnswer:",
        (" No", " Yes"),
    ),
    "mnli": replace(MNLI, evaluation=("validation_matched", "validation_mismatched")),
    "mrpc": _glue("mrpc", ("accuracy", "f1"), SENTENCES, ("not_equivalent", "equivalent"), SAME, (" No", " Yes")),
    "qnli": _glue(
        "qnli",
        ("accuracy",),
        ("question", "sentence"),
        ("entailment", "not_entailment"),
        "{pair}\nQuestion: does this answer: {text}\nAnswer:",
        YES_NO,
    ),
    "qqp": _glue(
        "qqp", ("accuracy", "f1"), ("question1", "question2"), ("not_duplicate", "duplicate"), SAME, (" No", " Yes")
    ),
    "rte": _glue("rte", ("accuracy",), SENTENCES, ("entailment", "not_entailment"), FOLLOWS, (" True", " False")),
    "sst2": _glue(
        "sst2",
        ("accuracy",),
        ("sentence", None),
        ("negative", "positive"),
        "Review: {text}\nSentiment:",
        (" negative", " positive"),
    ),
    "stsb": _glue("stsb", ("pearson", "spearman"), SENTENCES, family="regression"),
    "squad": TaskInfo("question-answering", dataset="rajpurkar/squad", metrics=("f1", "exact_match")),
    "squad_v2": TaskInfo(
        "question-answering",
        dataset="rajpurkar/squad_v2",
        metrics=("f1", "exact_match", "HasAns_f1", "HasAns_exact", "NoAns_f1"),
    ),
    "xsum": TaskInfo(
        "seq2seq",
        {"source": "document", "target": "summary"},
        "EdinburghNLP/xsum",
        metrics=("rouge2", "rouge1", "rougeL"),
    ),
    "cnn_dailymail": TaskInfo(
        "seq2seq",
        {"source": "article", "target": "highlights"},
        "abisee/cnn_dailymail",
        "3.0.0",
        metrics=("rouge2", "rouge1", "rougeL"),
    ),
}


def find_task(name: str | None) -> TaskInfo:
    """The task of that name.

    Raises:
        WeightLoraError: There is none.
    """
    if name is None:
        raise ConfigError(f"--task is missing: choose one of {', '.join(TASKS)}.")
    check_known("task", name, TASKS)
    return TASKS[name]
