"""The default on SmolLM2 at new seeds, against each reference whose runs are complete."""

from ..results import by_seed
from .points import complete_tasks
from .replication import by_task
from .runs import runs_in
from .tuned import PROBE
from .winner import LORA_IN_WORDS, references_of

TASKS = ("smollm2-sentiment-float32", "smollm2-imdb-lm-float32")
SEEDS = range(20, 25)


def decoder_seeds() -> str:
    """A row for each task: the loss minus that of each complete reference, and the metric minus LoRA's."""
    runs = by_seed(runs_in("decoder-seeds"))
    complete = {
        words: label
        for words, label in references_of(PROBE).items()
        if complete_tasks(runs, TASKS, (PROBE, label), SEEDS) == [*TASKS]
    }
    metrics = {words: label for words, label in complete.items() if words == LORA_IN_WORDS}
    return by_task(runs, TASKS, PROBE, complete, metrics)
