"""A Trainer that was stopped and resumed ends as the one that was not, bit for bit, wherever it was stopped."""

import json
import shutil

import pytest
from models import batch, lora_bert
from runs import ROUNDS, build, outcome, same
from transformers import Trainer, TrainerCallback, TrainingArguments

from weightlora import WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer, restore
from weightlora.state import STATE_FILE

GATES = {"keep": 3, "select_steps": 6, "selection": "stoiht", "omega_lr": 2.0, "warmup_steps": 2, "rounds": 2}
CASES = {
    "credit": {"keep": 3, "select_steps": 5},
    "credit in rounds, growing": ROUNDS,
    "gates with warm-up, growing": {**GATES, "expand": "random"},
}
# Warm-up, selection, between the rounds, right after the disconnect (and the expansion), and after it.
CUTS = [1, 3, 4, 6, 7]


@pytest.fixture(scope="module", params=CASES)
def whole(request, tmp_path_factory):
    """A run without interruption, its checkpoints, and its settings."""
    directory = tmp_path_factory.mktemp("whole")
    trainer = build(directory, CASES[request.param])
    trainer.train()
    return directory, CASES[request.param], outcome(trainer)


@pytest.mark.parametrize("cut", CUTS)
def test_resuming_is_bit_for_bit_no_interruption(whole, tmp_path, cut):
    directory, settings, expected = whole
    shutil.copytree(directory / f"checkpoint-{cut}", tmp_path / f"checkpoint-{cut}")
    trainer = build(tmp_path, settings)
    trainer.train(resume_from_checkpoint=True)
    same(outcome(trainer), expected)


@pytest.mark.parametrize("cut", [3, 7])
def test_a_plain_trainer_resumes_a_model_that_was_restored(whole, tmp_path, cut):
    directory, settings, expected = whole
    checkpoint = directory / f"checkpoint-{cut}"
    model = lora_bert(dropout=0.1)
    restore(model, checkpoint)
    trainer = build(tmp_path, settings, kind=Trainer, model=model)
    trainer.args.resume_from_checkpoint = str(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    trainer.weightlora = next(c for c in trainer.callback_handler.callbacks if isinstance(c, WeightLoraCallback))
    same(outcome(trainer), expected)


def test_a_plain_trainer_says_what_to_do_before_it_trains_the_wrong_adapters(whole, tmp_path):
    directory, settings, _ = whole
    checkpoint = directory / "checkpoint-7"
    trainer = build(tmp_path, settings, kind=Trainer)
    trainer.args.resume_from_checkpoint = str(checkpoint)
    with pytest.raises((ValueError, RuntimeError)):  # torch sees other groups or other ranks before we are asked
        trainer.train(resume_from_checkpoint=str(checkpoint))
    (tmp_path / "bare").mkdir()
    shutil.copytree(directory / "checkpoint-1", tmp_path / "bare" / "checkpoint-1")
    (tmp_path / "bare" / "checkpoint-1" / STATE_FILE).unlink()
    trainer = build(tmp_path / "bare", settings, kind=Trainer)
    with pytest.raises(
        ValueError, match=r"resumes at step 1, and there is no weightlora_state\.json in .*checkpoint-1"
    ):
        trainer.train(resume_from_checkpoint=str(tmp_path / "bare" / "checkpoint-1"))


def test_a_checkpoint_that_was_cut_short_is_passed_over(whole, tmp_path, caplog):
    directory, settings, expected = whole
    for cut in (3, 4, 6):
        shutil.copytree(directory / f"checkpoint-{cut}", tmp_path / f"checkpoint-{cut}")
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-4" / STATE_FILE).write_text('{"sha')
    trainer = build(tmp_path, settings)
    trainer.train(resume_from_checkpoint=True)
    assert "checkpoint-6 is passed over" in caplog.text and "checkpoint-4 is passed over" in caplog.text
    same(outcome(trainer), expected)


def test_without_a_whole_checkpoint_resuming_is_refused(tmp_path):
    trainer = build(tmp_path, CASES["credit"])
    with pytest.raises(ValueError, match="there is no whole checkpoint in"):
        trainer.train(resume_from_checkpoint=True)


def test_other_settings_are_refused(whole, tmp_path):
    directory, settings, _ = whole
    trainer = build(tmp_path, settings | {"keep": 4})
    with pytest.raises(ValueError, match="saved with keep=3, and the config says 4"):
        trainer.train(resume_from_checkpoint=str(directory / "checkpoint-3"))


def test_the_settings_may_be_an_argument_and_the_card_tells_what_was_kept(tmp_path):
    rows = [{key: value[i] for key, value in batch(0).items()} for i in range(8)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=4, save_steps=4, report_to=[], disable_tqdm=True, use_cpu=True
    )
    config = WeightLoraConfig(keep=3, select_steps=2)
    logged = []
    first = [Logged(logged)]
    trainer = WeightLoraTrainer(lora_bert(), arguments, train_dataset=rows, callbacks=first, weightlora=config)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    for place in ("final", "checkpoint-4"):
        card = (tmp_path / place / "README.md").read_text()
        assert "- weightlora" in card.split("---")[1], "the tag"
        assert card.count("## Adapters") == 1
        assert "3 of 12 LoRA adapters were kept" in card
        for name in trainer.weightlora.selector.kept:
            assert f"| <code>{name}</code> | 4 |" in card
    assert not (tmp_path / "final" / STATE_FILE).exists(), "what is saved at the end is a plain PEFT adapter"
    assert json.loads((tmp_path / "checkpoint-4" / STATE_FILE).read_text())["versions"]["peft"]
    assert "weightlora/active_adapters" in logged[0]

    without = WeightLoraTrainer(lora_bert(), arguments, train_dataset=rows)
    with pytest.raises(ValueError, match="this Trainer selects nothing: pass weightlora="):
        without.train()
    assert without.state.global_step == 0, "before any work"


class Logged(TrainerCallback):
    """What a callback sees that comes before ours, as W&B does."""

    def __init__(self, entries):
        self.entries = entries

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.entries.append(dict(logs))
