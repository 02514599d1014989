"""A Trainer that was stopped and resumed ends as the one that was not, bit for bit, wherever it was stopped."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from models import lora_bert
from runs import ROUNDS, build, outcome, same
from transformers import Trainer, TrainerCallback
from transformers.trainer_jit_checkpoint import JITCheckpointCallback

import weightlora.state
from weightlora import WeightLoraCallback, WeightLoraTrainer, restore
from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError, StateError
from weightlora.files import read_lines
from weightlora.run import HISTORY
from weightlora.state import STATE_FILE

GATES = {"keep": 3, "select_steps": 6, "selection": "stoiht", "omega_lr": 2.0, "warmup_steps": 2, "rounds": 2}
CASES = {
    "credit in rounds, growing": ROUNDS,
    "credit": {"keep": 3, "select_steps": 5},
    "gates with warm-up, growing": {**GATES, "expand": "random"},
    "a probe, growing": {"keep": 3, "expand": "qr"},
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


whichever = pytest.mark.parametrize("whole", [*CASES][:1], indirect=True)
"""For a test that holds for each rule alike."""


@pytest.mark.parametrize("cut", CUTS)
def test_resuming_is_bit_for_bit_no_interruption(whole, tmp_path, cut):
    directory, settings, expected = whole
    shutil.copytree(directory / f"checkpoint-{cut}", tmp_path / f"checkpoint-{cut}")
    trainer = build(tmp_path, settings)
    trainer.train(resume_from_checkpoint=True)
    same(outcome(trainer), expected)


@pytest.mark.parametrize("kind", [WeightLoraTrainer, Trainer])
@pytest.mark.parametrize("settings", [{"keep": 3}, {"keep": 3, "select_steps": 5}])
def test_adapters_of_16_bits_stay_so(tmp_path, kind, settings):
    """As TRL makes them for QLoRA. PEFT loads them into new parameters of 32 bits."""

    def built():
        model = lora_bert(dropout=0.1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(torch.bfloat16)
        return build(tmp_path, settings, kind=kind, model=model)

    (whole := built()).train()
    (resumed := built()).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    expected = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        assert value.dtype == expected[name].dtype and torch.equal(value, expected[name]), name
    assert any(value.dtype == torch.bfloat16 for value in expected.values())


def test_adapters_of_16_bits_train_on_after_the_best_model_is_loaded(tmp_path):
    model = lora_bert()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0.05}
    (trainer := build(tmp_path, {"keep": 3}, model=model, **best)).train()
    trainer.remove_callback(WeightLoraCallback)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}
    trainer.args.load_best_model_at_end = False
    trainer.train()
    for name, parameter in model.named_parameters():
        assert name not in before or not torch.equal(parameter, before[name]), name


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


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_plain_trainer_with_the_callback_resumes_bit_for_bit_too(whole, tmp_path, cut):
    directory, settings, expected = whole
    shutil.copytree(directory / f"checkpoint-{cut}", tmp_path / f"checkpoint-{cut}")
    trainer = build(tmp_path, settings, kind=Trainer)
    trainer.train(resume_from_checkpoint=True)
    trainer.weightlora = next(c for c in trainer.callback_handler.callbacks if isinstance(c, WeightLoraCallback))
    same(outcome(trainer), expected)
    assert trainer.model.get_base_model().model_tags == ["weightlora"]


@whichever
@pytest.mark.parametrize("kind", [Trainer, WeightLoraTrainer])
def test_it_resumes_where_the_model_comes_from_model_init(whole, tmp_path, kind):
    """Not bit for bit: to make the model takes random numbers, so the data come in another order."""
    directory, settings, _ = whole
    trainer = build(tmp_path, settings, kind=kind)
    trainer.model_init = lambda: lora_bert(dropout=0.1)
    trainer.train(resume_from_checkpoint=str(directory / "checkpoint-7"))
    assert len(find_adapters(trainer.model)) == 3 and trainer.state.global_step == 8


@pytest.mark.parametrize("kind", [Trainer, WeightLoraTrainer])
def test_a_train_that_failed_to_resume_is_not_forgotten(tmp_path, kind, monkeypatch):
    """The model has the adapters of the checkpoint already, and a training from step 0 would go on with its choice."""
    settings = {"keep": 3, "selection": "random", "select_steps": 0}
    build(tmp_path, settings, max_steps=2).train()
    trainer = build(tmp_path, settings, kind=kind, max_steps=3)
    with monkeypatch.context() as patch:

        def fails(checkpoint):
            raise RuntimeError("optimizer.pt is damaged")

        patch.setattr(trainer, "_load_optimizer_and_scheduler", fails)
        with pytest.raises(RuntimeError, match="is damaged"):
            trainer.train(resume_from_checkpoint=True)
    with pytest.raises(StateError, match=r"^an earlier train\(\) gave the model the adapters of .*-2, of step 2, and"):
        trainer.train()
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3 and len(find_adapters(trainer.model)) == 3


@pytest.mark.parametrize("kind", [Trainer, WeightLoraTrainer])
@pytest.mark.parametrize(("cut", "at"), [(1, 2), (7, 8)], ids=["before the choice", "after it"])
def test_an_interrupted_trainer_resumes_itself(whole, tmp_path, kind, cut, at):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == at and not interrupted:
                interrupted.append(at)
                raise KeyboardInterrupt

    interrupted: list[int] = []
    _, settings, expected = whole
    trainer = build(tmp_path, settings, Interrupt(), kind=kind, save_steps=cut)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{cut}"))
    if kind is Trainer:
        handler = trainer.callback_handler
        trainer.weightlora = next(c for c in handler.callbacks if isinstance(c, WeightLoraCallback))
    same(outcome(trainer), expected)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trainer.model.modules())


@pytest.mark.parametrize("settings", [ROUNDS, {"keep": 3}], ids=["rounds", "probe"])
@pytest.mark.parametrize("kind", [Trainer, WeightLoraTrainer])
def test_an_optimizer_with_a_group_for_each_parameter_has_the_groups_of_the_first_run(tmp_path, settings, kind):
    """As layerwise learning rates have: built from the adapters that are left, it would have fewer groups."""

    class Layerwise(kind):
        def create_optimizer(self, model=None):
            if self.optimizer is None:
                trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
                groups = [{"params": [one], "lr": 0.01 / (1 + place)} for place, one in enumerate(trained)]
                self.optimizer = torch.optim.AdamW(groups)
            return self.optimizer

    def ends_at(*arguments):
        trainer = build(tmp_path, settings, kind=Layerwise)
        trainer.train(*arguments)
        return trainer.model.state_dict()

    whole = ends_at()
    for cut in (3, 7):
        resumed = ends_at(str(tmp_path / f"checkpoint-{cut}"))
        assert resumed.keys() == whole.keys() and all(torch.equal(resumed[name], whole[name]) for name in whole)


class Preempted(TrainerCallback):
    """Lets `enable_jit_checkpoint` find, after one step, that the machine is taken away."""

    def __init__(self, step):
        self.step, self.jit = step, None

    def on_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            self.jit.jit_manager.is_checkpoint_requested = True


@pytest.mark.parametrize("cut", [2, 6], ids=["in the selection", "at the choice"])
def test_a_checkpoint_in_time_is_resumed_bit_for_bit(tmp_path, cut):
    """Transformers writes it before other callbacks hear of the step, with a file beside it that it then removes."""
    expected = build(tmp_path / "whole", ROUNDS)
    expected.train()
    preempted = Preempted(cut)
    first = build(tmp_path, ROUNDS, preempted, enable_jit_checkpoint=True, save_strategy="no")
    preempted.jit = next(c for c in first.callback_handler.callbacks if isinstance(c, JITCheckpointCallback))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="training ended after")
        first.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{cut}"]
    trainer = build(tmp_path, ROUNDS)
    trainer.train(resume_from_checkpoint=True)
    *found, _ = outcome(trainer)  # the loss of that step was not logged yet
    same((*found, None), (*outcome(expected)[:2], None))
    decisions = [entry["step"] for entry in read_lines(tmp_path / HISTORY) if "kept" in entry]
    assert decisions == [3, 6]


def test_a_plain_trainer_refuses_checkpoints_of_which_it_tells_no_callback(tmp_path):
    trainer = build(tmp_path, ROUNDS, kind=Trainer, enable_jit_checkpoint=True)
    with pytest.raises(ConfigError, match="enable_jit_checkpoint=True writes a checkpoint without telling callbacks"):
        trainer.train()
    assert trainer.state.global_step == 0


@whichever
def test_a_plain_trainer_refuses_a_checkpoint_without_our_state(whole, tmp_path):
    directory, settings, _ = whole
    shutil.copytree(directory / "checkpoint-7", tmp_path / "checkpoint-7")
    (tmp_path / "checkpoint-7" / STATE_FILE).unlink()
    trainer = build(tmp_path, settings, kind=Trainer)
    with pytest.raises(StateError, match=r"weightlora_state\.json is missing"):
        trainer.train(resume_from_checkpoint=True)


@whichever
def test_a_callback_that_was_added_later_says_what_to_do(whole, tmp_path):
    """Before the choice: after it, torch finds another number of parameters before the callback is asked."""
    directory, settings, _ = whole
    shutil.copytree(directory / "checkpoint-1", tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-1" / STATE_FILE).unlink()
    trainer = build(tmp_path, settings, kind=Trainer)
    callback = trainer.pop_callback(WeightLoraCallback)
    trainer.add_callback(callback)
    del trainer._load_from_checkpoint
    with pytest.raises(StateError, match=r"resumes at step 1, and there is no weightlora_state\.json in"):
        trainer.train(resume_from_checkpoint=True)


def test_a_fraction_keeps_the_steps_that_the_run_began_with(tmp_path):
    first = build(tmp_path, {"keep": 3, "select_steps": 0.5}, max_steps=6)
    first.train()
    for kind in (WeightLoraTrainer, Trainer):
        trainer = build(tmp_path, {"keep": 3, "select_steps": 0.5}, kind=kind, max_steps=8)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, WeightLoraCallback))
        assert callback.selector.step_count == 3 and trainer.state.global_step == 8


@whichever
def test_a_checkpoint_that_was_cut_short_is_passed_over(whole, tmp_path, caplog):
    directory, settings, expected = whole
    for cut in (3, 4, 6):
        shutil.copytree(directory / f"checkpoint-{cut}", tmp_path / f"checkpoint-{cut}")
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-4" / STATE_FILE).write_text('{"sha')
    trainer = build(tmp_path, settings)
    trainer.train(resume_from_checkpoint=True)
    assert "checkpoint-6 is skipped" in caplog.text and "checkpoint-4 is skipped" in caplog.text
    same(outcome(trainer), expected)


def test_without_a_whole_checkpoint_resuming_is_refused(tmp_path):
    trainer = build(tmp_path, CASES["credit"])
    with pytest.raises(ValueError, match=r"there is no complete checkpoint in .* to resume from: train without"):
        trainer.train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-2").mkdir()  # of a run that was killed while it saved
    with pytest.raises(ValueError, match=r"delete its checkpoint-\* directories and train without"):
        trainer.train(resume_from_checkpoint=True)


@whichever
def test_other_settings_are_refused(whole, tmp_path):
    directory, settings, _ = whole
    trainer = build(tmp_path, settings | {"keep": 4})
    with pytest.raises(ValueError, match="saved with keep=3, and the config says 4"):
        trainer.train(resume_from_checkpoint=str(directory / "checkpoint-3"))


@whichever
@pytest.mark.parametrize("kind", [WeightLoraTrainer, Trainer])
def test_a_checkpoint_has_its_state_written_once_and_a_resume_reads_it_once(whole, tmp_path, monkeypatch, kind):
    directory, settings, _ = whole
    shutil.copytree(directory / "checkpoint-7", tmp_path / "checkpoint-7")
    read, written, read_text, write_text = [], [], Path.read_text, weightlora.state.write_text

    def reading(path, *args, **kwargs):
        read.extend([path.parent.name] * (path.name == STATE_FILE))
        return read_text(path, *args, **kwargs)

    def writing(path, text):
        written.append(path.parent.name)
        return write_text(path, text)

    monkeypatch.setattr(Path, "read_text", reading)
    monkeypatch.setattr("weightlora.state.write_text", writing)
    build(tmp_path, settings, kind=kind).train(resume_from_checkpoint=True)
    assert read == ["checkpoint-7"] and written == ["checkpoint-8"]
