"""The benchmark's workloads by name, and an experiment as a job of the training stack.

A name that ends in `-all` is the same task with the pooler, as users of `all-linear` get it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from datasets import Dataset

from weightlora.errors import ConfigError
from weightlora.train.arguments import Recipe, as_arguments, parse
from weightlora.train.plan import Job, prepare
from weightlora.train.work import Source, Work

from .gemma3 import language_modelling_of_definitions
from .minilm import film_reviews, reviews, spam, supersenses, valence
from .smollm2 import language_modelling, sentiment
from .workload import Workload

WORKLOADS: dict[str, Callable[[], Workload]] = {
    "rotten-tomatoes": partial(reviews, "rotten_tomatoes"),
    "imdb": partial(reviews, "imdb"),
    "vader-tweets": partial(valence, "tweets"),
    "rotten-tomatoes-all": partial(reviews, "rotten_tomatoes", "all-linear"),
    "imdb-all": partial(reviews, "imdb", "all-linear"),
    "vader-tweets-all": partial(valence, "tweets", "all-linear"),
    "products": partial(valence, "products", "all-linear"),
    "editorials": partial(valence, "editorials", "all-linear"),
    "film-reviews": film_reviews,
    "spam": spam,
    "supersenses": supersenses,
    "smollm2-sentiment": partial(sentiment, "rotten_tomatoes"),
    "smollm2-imdb-lm": partial(language_modelling, "imdb"),
    "gemma3-definitions": language_modelling_of_definitions,
}


def job_for(experiment: Mapping[str, Any], seed: int, methods: Any, output_dir: str) -> Job:
    """A run of the benchmark, ready for `fit`.

    Args:
        experiment: Resolved settings.
        seed: Of the head, the data order, dropout, and whatever the method draws.
        methods: Registry of methods.
        output_dir: Where `fit` writes, unless it is told not to.

    Raises:
        WeightLoraError: There is no such workload, its data or model is missing, or a setting does not fit.
    """
    workload = find_workload(experiment)
    recipe = parse(as_arguments(settings_of(workload, experiment, seed, output_dir)))
    return prepare(recipe, methods, partial(_make, workload, experiment))


def find_workload(experiment: Mapping[str, Any]) -> Workload:
    """The workload that the experiment names, or else the one with the name of its task.

    Raises:
        ConfigError: There is none.
    """
    key = "workload" if "workload" in experiment else "task"
    name = experiment[key]
    if name not in WORKLOADS:
        raise ConfigError(f"{key} {name!r} is unknown: choose one of {', '.join(WORKLOADS)}.")
    return WORKLOADS[name]()


def settings_of(workload: Workload, experiment: Mapping[str, Any], seed: int, output_dir: str) -> dict[str, Any]:
    """The experiment as arguments of `weightlora train`."""
    return {
        "task": experiment["task"],
        "model": str(workload.model()),
        "target_modules": [workload.target_modules],
        **workload.settings,
        "method": experiment["method"],
        "rank": experiment["rank"],
        "alpha": experiment["alpha"],
        "dropout": experiment["dropout"],
        "keep": experiment["keep"],
        "select_steps": experiment["select_steps"],
        "method_options": dict(experiment["options"]),
        "max_length": experiment["max_length"],
        "pad_to_max_length": True,
        "max_steps": experiment["steps"],
        "per_device_train_batch_size": experiment["batch_size"],
        "per_device_eval_batch_size": experiment["batch_size"] * 2,
        "learning_rate": experiment["learning_rate"],
        "optim": experiment.get("optimizer", "adamw_torch_fused"),
        "lr_scheduler_type": "linear",
        "warmup_steps": experiment["warmup_steps"],
        "weight_decay": experiment["weight_decay"],
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": experiment.get("device", "cpu") == "cpu",
        "bf16": experiment.get("bf16", False),
        "output_dir": output_dir,
    }


def _make(workload: Workload, experiment: Mapping[str, Any], recipe: Recipe, tokenizer: Any, config: Any) -> Work:
    found = workload.splits()
    wanted = ("train", experiment["evaluate_on"])
    limit = {split: experiment.get(f"{split}_examples") if workload.cut_rows else None for split in wanted}
    splits = {split: Dataset.from_list(found[split][: limit[split]]) for split in wanted}
    return workload.work(Source(workload.task, recipe.data, splits, tokenizer, config), experiment)
