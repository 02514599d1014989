"""What a method is told of a run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from recipes import arguments
from transformers import MambaConfig, MambaForCausalLM

from weightlora.adapters import find_adapters
from weightlora.train import parse
from weightlora.train.methods import METHODS
from weightlora.train.setting import setting_for, steps_of


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


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", "TOKEN_CLS"])
def test_all_linear_leaves_out_what_peft_cannot_adapt(world: Path, tmp_path: Path, task_type: str):
    """PEFT refuses the output of Mamba's blocks, also where `target_modules` is all-linear."""
    recipe = parse(arguments(world, "cola", "deberta", tmp_path, "--method", "lora", "--target_modules", "all-linear"))
    model = MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, state_size=4))
    work = SimpleNamespace(train=range(8), task_type=task_type)
    setting = setting_for(recipe, work, model, METHODS["lora"], fresh=())  # type: ignore[arg-type]
    adapters = [adapter.name for adapter in find_adapters(setting.lora())]
    assert not any("out_proj" in name for name in adapters) and any("in_proj" in name for name in adapters)
