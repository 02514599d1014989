"""The callback in a real Trainer: the same choice as in a plain loop, and nothing of ours in the Trainer's way."""

import json
import logging

import pytest
import torch
from loops import CREDIT, GATES, LR, RULES, STEPS, assert_same_history, by_hand, make_trainer
from models import lora_bert
from runs import At
from torch.nn.functional import linear
from transformers import Trainer, TrainerCallback

from weightlora import WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer
from weightlora.adapters import find_adapters
from weightlora.errors import ModelError
from weightlora.files import read_lines
from weightlora.run import HISTORY, SELECTION, describe_selection
from weightlora.state import STATE_FILE
from weightlora.trainers.resuming import read_checkpoint


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_trainer_chooses_what_a_plain_loop_chooses(tmp_path, rule, accumulation):
    """Every gate, every score and the survivors; with accumulation, two halves of the same batch."""
    config = WeightLoraConfig(**RULES[rule])
    callback = WeightLoraCallback(config)
    run = make_trainer(
        tmp_path,
        lora_bert(),
        callback,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    run.train()
    expected = by_hand(config)
    assert callback.selector.step_count == 4
    assert callback.selector.kept == expected.kept
    assert callback.selector.ranks == expected.ranks
    assert_same_history(callback.selector, expected, rtol=1e-3)
    on_model = find_adapters(run.model)
    assert [adapter.name for adapter in on_model] == expected.kept
    for adapter, other in zip(on_model, expected.adapters, strict=True):
        assert adapter.scaling == pytest.approx(other.scaling, rel=1e-3)
        for mine, theirs in zip(adapter.factors, other.factors, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("rule", [CREDIT, GATES], ids=["credit", "gates"])
def test_after_the_choice_only_survivors_are_left_and_they_go_on_training(tmp_path, rule):
    at_choice = {}

    def remember(model, **kwargs):
        at_choice.update({id(p): p.detach().clone() for a in find_adapters(model) for p in a.parameters})

    callback = WeightLoraCallback(WeightLoraConfig(**rule))
    run = make_trainer(tmp_path, lora_bert(), callback, At(4, remember))
    run.train()
    survivors = [parameter for adapter in callback.selector.adapters for parameter in adapter.parameters]
    assert len(survivors) == 2 * 3
    assert at_choice.keys() == {id(parameter) for parameter in survivors}
    assert not any(torch.equal(at_choice[id(parameter)], parameter) for parameter in survivors)

    head = [parameter for name, parameter in run.model.named_parameters() if ".modules_to_save." in name]
    held = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in survivors + head}
    assert {id(parameter) for parameter in run.optimizer.state} == {id(parameter) for parameter in held}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model.modules())


def test_the_linear_schedule_goes_on_through_the_choice(tmp_path):
    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT, expand="qr")))
    run.train()
    rates = [entry["learning_rate"] for entry in run.state.log_history if "loss" in entry]
    assert rates == pytest.approx([LR * (1 - step / STEPS) for step in range(STEPS)])
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx([0.0] * 2)


def test_a_random_choice_before_the_first_step_trains_only_the_chosen(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(keep=2, selection="random", select_steps=0))
    run = make_trainer(tmp_path, lora_bert(), callback)
    run.train()
    entries = [entry for entry in run.state.log_history if "loss" in entry]
    assert [entry["weightlora/active_adapters"] for entry in entries] == [2] * STEPS
    assert [adapter.name for adapter in find_adapters(run.model)] == callback.selector.kept
    assert all(adapter.factors[1].abs().max() > 0 for adapter in callback.selector.adapters)


def fuse(model) -> None:
    """As fused LoRA kernels do: each layer computes its update from the weights, and calls no module of PEFT's."""
    for adapter in find_adapters(model):
        layer, name = adapter.layer, adapter.adapter_name

        def forward(x, layer=layer, name=name):
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            return layer.base_layer(x) + layer.scaling[name] * linear(linear(x, a), b)

        layer.forward = forward


def test_gates_that_a_fused_kernel_bypasses_are_noticed_in_the_first_step(tmp_path):
    model = lora_bert()
    fuse(model)
    run = make_trainer(tmp_path, model, WeightLoraCallback(WeightLoraConfig(**GATES)))
    with pytest.raises(ValueError, match=r"^no gate got a gradient: .*\(fused LoRA kernels bypass gates; switch them"):
        run.train()
    assert run.state.global_step == 0
    assert len(find_adapters(model)) == 12


def test_credit_works_under_a_fused_kernel(tmp_path):
    model = lora_bert()
    fuse(model)
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    make_trainer(tmp_path, model, callback).train()
    expected = by_hand(callback.config)
    assert_same_history(callback.selector, expected, rtol=1e-4)
    assert [adapter.name for adapter in find_adapters(model)] == expected.kept


def test_the_best_checkpoint_of_before_the_disconnect_is_not_brought_back(tmp_path, caplog):
    class Worsening(Trainer):
        """Its first evaluation is the best one."""

        def evaluate(self, *args, **kwargs):
            metrics = super().evaluate(*args, **kwargs) | {"eval_loss": float(self.state.global_step)}
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    settings = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    watch = Snapshots()
    run = make_trainer(tmp_path, lora_bert(), callback, watch, kind=Worsening, save_steps=1, **settings)
    run.train()
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-4"), "the first with the kept adapters alone"
    assert "checkpoint-1 was the best checkpoint, but has the adapters from before the choice" in caplog.text
    kept = [adapter.factors[1].detach().clone() for adapter in callback.selector.adapters]
    assert all(torch.equal(one, other) for one, other in zip(kept, watch.after[4], strict=True))


class Snapshots(TrainerCallback):
    """B of every adapter after each step, once the selection has ended its step."""

    def __init__(self):
        self.after = {}

    def on_step_end(self, args, state, control, **kwargs):
        self.after[state.global_step] = [a.factors[1].detach().clone() for a in find_adapters(kwargs["model"])]


@pytest.mark.parametrize("kind", [Trainer, WeightLoraTrainer])
def test_save_pretrained_before_the_choice_leaves_a_tag_in_the_card(tmp_path, kind):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(tmp_path, lora_bert(), callback, kind=kind)
    run.add_callback(At(2, lambda model, **_: model.save_pretrained(tmp_path / "early")))
    run.train()
    run.model.save_pretrained(tmp_path / "final")
    tags = [(tmp_path / name / "README.md").read_text().split("---")[1] for name in ("early", "final")]
    assert "- weightlora-unfinished" in tags[0] and "- weightlora-unfinished" not in tags[1]
    assert "- weightlora\n" in tags[1]


def test_the_checkpoints_of_a_plain_trainer_tell_in_their_card_what_was_kept(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    make_trainer(tmp_path, lora_bert(), callback, save_strategy="steps", save_steps=3).train()
    early, late = ((tmp_path / f"checkpoint-{step}" / "README.md").read_text() for step in (3, 6))
    assert "3 of 4 selection steps" in early and "3 of 12 LoRA adapters were kept" in late


@pytest.mark.parametrize(("selection", "told"), [("stoiht", 1), ("credit", 0)])
def test_checkpoints_without_their_gates_are_told_once(tmp_path, caplog, selection, told):
    logging.Logger.warning_once.cache_clear()
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT | {"selection": selection}))
    make_trainer(tmp_path, lora_bert(), callback, save_strategy="steps", save_steps=1).train()
    assert caplog.text.count("has its adapters without their gates: resume from it") == told


def test_a_plain_trainer_leaves_a_run_directory(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    make_trainer(tmp_path, lora_bert(), callback).train()
    assert read_lines(tmp_path / HISTORY) == callback.selector.history
    assert json.loads((tmp_path / SELECTION).read_text()) == describe_selection(callback.selector)


class SmallMemory(Trainer):
    """Has no room for batches of more than four rows."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if len(inputs["labels"]) > 4 and self.state.global_step >= self.gives_up_at:
            raise RuntimeError("CUDA out of memory.")
        return super().compute_loss(model, inputs, *args, **kwargs)

    gives_up_at = 0


@pytest.mark.parametrize(
    ("settings", "gives_up_at"),
    [({"keep": 3}, 0), ({"keep": 3}, 1), (CREDIT, 0), (CREDIT, 2), (GATES, 0), (GATES, 2)],
    ids=["in the probe", "after the probe", "before credit", "with credit", "before gates", "with gates"],
)
def test_it_goes_on_where_the_trainer_tries_smaller_batches(tmp_path, settings, gives_up_at, monkeypatch):
    callback = WeightLoraCallback(WeightLoraConfig(**settings))
    run = make_trainer(tmp_path, lora_bert(), callback, kind=SmallMemory, auto_find_batch_size=True)
    run.gives_up_at = gives_up_at
    chosen, said = [], []
    monkeypatch.setattr(callback._guest, "_say", said.append)
    run.add_callback(At(1, lambda **kwargs: chosen.append(callback.selector.kept)))
    run.train()
    how = "continues" if gives_up_at else "starts over, too"
    assert f"Training starts over, and the selection {how}." in said
    assert run._train_batch_size <= 4 and run.state.global_step == STEPS
    assert len(callback.selector.kept) == 3
    assert [adapter.name for adapter in find_adapters(run.model)] == callback.selector.kept
    on_optimizer = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert {id(p) for adapter in callback.selector.adapters for p in adapter.parameters} <= on_optimizer
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model.modules())
    if "select_steps" not in settings:
        assert all(kept == callback.selector.kept for kept in chosen), "the choice of the first attempt stays"
    with pytest.raises(ModelError, match="has chosen 3 adapters of this model in an earlier train"):
        run.train()


class GivesUpOnce(Trainer):
    """In its third step."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if self.state.global_step == 2 and len(inputs["labels"]) == 8:
            raise RuntimeError("CUDA out of memory.")
        return super().compute_loss(model, inputs, *args, **kwargs)


def test_checkpoints_of_a_training_that_started_over_in_the_selection_are_whole(tmp_path):
    """The selection has seen the steps of the first attempt, which the Trainer does not count."""
    settings = {"auto_find_batch_size": True, "save_strategy": "steps", "save_steps": 1}
    first = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(tmp_path, lora_bert(), first, kind=GivesUpOnce, **settings)
    run.train()
    begun = json.loads((tmp_path / "checkpoint-1" / STATE_FILE).read_text())["state"]
    assert (begun["step_count"], begun["carried"]) == (3, 2)
    again = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    later = make_trainer(tmp_path, lora_bert(), again, **settings)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert again.selector.kept == first.selector.kept and later.state.global_step == STEPS


def test_checkpoints_of_a_resumed_training_that_started_over_are_whole(tmp_path):
    """The Trainer starts over from the checkpoint that it was resumed from, and counts the steps before it."""
    settings = {"auto_find_batch_size": True, "save_strategy": "steps", "save_steps": 1}
    make_trainer(tmp_path, lora_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT)), **settings).train()
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(tmp_path, lora_bert(), callback, kind=GivesUpOnce, **settings)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert run._train_batch_size < 8
    for step in range(1, STEPS + 1):
        state = read_checkpoint(tmp_path / f"checkpoint-{step}")
        assert (state.step_count, state.carried) == (min(step + (step > 1), 4), int(step > 1))
