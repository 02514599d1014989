"""What a method is told of a run."""

from pathlib import Path

import pytest
from recipes import arguments

from weightlora.train import parse
from weightlora.train.setting import steps_of


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        (["--max_steps", 7], 7),
        (["--max_steps", -1, "--num_train_epochs", 2], 2 * 3),  # 10 rows are 3 batches of 4
        (["--max_steps", -1, "--num_train_epochs", 2, "--dataloader_drop_last", "true"], 2 * 2),
        (["--max_steps", -1, "--num_train_epochs", 2, "--gradient_accumulation_steps", 2], 2 * 2),
        (["--max_steps", -1, "--num_train_epochs", 0.5, "--gradient_accumulation_steps", 8], 1),
    ],
)
def test_steps_are_the_trainers(world: Path, tmp_path: Path, more: list[object], steps: int):
    assert steps_of(parse(arguments(world, "cola", "deberta", tmp_path, *more)).training, 10) == steps
