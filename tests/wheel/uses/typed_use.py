"""A user's file, for `mypy --strict` against the installed wheel: what is inferred, and what mistakes are found."""

from collections.abc import Iterable
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from typing_extensions import assert_type

from weightlora import (
    PrefixCache,
    Selection,
    WeightLora,
    WeightLoraCallback,
    WeightLoraConfig,
    WeightLoraError,
    WeightLoraTrainer,
    __version__,
    export_adapter,
    restore,
    save_run,
    select,
)
from weightlora.summary import Summary


def own_loop(model: PeftModel, loader: Iterable[dict[str, Tensor]]) -> list[str]:
    optimizer = torch.optim.AdamW(model.parameters())
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=0.25, select_steps=30), run_dir=Path("run"))
    for batch in loader:
        model(**batch).loss.backward()
        optimizer.step()
        selector.step()
    assert_type(selector.config, WeightLoraConfig)
    assert_type(selector.kept, list[str])
    assert_type(selector.ranks, dict[str, int])
    assert_type(selector.scores, dict[str, float])
    assert_type(selector.summary(), Summary)
    assert_type(selector.step_count, int)
    assert_type(save_run(selector, "run"), Path)
    return selector.kept


def in_a_trainer(model: PeftModel, arguments: TrainingArguments) -> WeightLora | None:
    trainer = WeightLoraTrainer(model, arguments, weightlora=WeightLoraConfig(keep=3))
    assert_type(trainer.weightlora, WeightLoraCallback)
    assert_type(trainer.weightlora.metrics(), dict[str, float])
    assert_type(trainer.args, TrainingArguments)
    callbacks: list[TrainerCallback] = [trainer.weightlora]
    assert callbacks
    return trainer.weightlora.selector


def the_choice(model: PeftModel, loader: Iterable[dict[str, Tensor]]) -> str:
    choice = select(model, loader, WeightLoraConfig(selection="gradient"), seeds=2)
    assert_type(choice, Selection)
    assert_type(choice.target_modules, list[str] | str)
    assert_type(choice.rank_pattern, dict[str, int])
    assert_type(Selection.load("run").rank, int)
    assert_type(__version__, str)
    return choice.to("axolotl")


def afterwards(model: PeftModel) -> int:
    exported = export_adapter("adapter", "served", "compact", dtype="bfloat16")
    assert_type(exported.difference, float | None)
    with PrefixCache(model, "cache") as cache:
        assert_type(cache.nbytes, int)
    try:
        restore(model, "checkpoint")
    except WeightLoraError as error:
        print(error.args)
    return exported.rank


# Each line has a mistake. Under --strict, a comment that is not needed is an error, too.
WeightLoraConfig(keep="9")  # type: ignore[arg-type]
WeightLoraConfig(kept=9)  # type: ignore[call-arg]
WeightLoraConfig(expand="always")  # type: ignore[arg-type]
WeightLoraCallback({"keep": 9})  # type: ignore[arg-type]
Selection.load("run").target_modules + "q_proj"  # type: ignore[operator]
export_adapter("adapter")  # type: ignore[call-arg]
