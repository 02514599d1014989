"""The callback in Lightning's Trainer: the choice of a plain loop with the same batches, and resuming bit for bit."""

import json
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from models import adamw, batch, lora_bert, tiny_bert
from processes import launch, outcomes
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

pytest.importorskip("lightning.pytorch", reason="the extra `lightning` is not installed")

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy

from weightlora import WeightLora, WeightLoraConfig, WeightLoraLightningCallback
from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError, ModelError, TrainingError
from weightlora.files import read_lines
from weightlora.run import HISTORY
from weightlora.trainers.lightning import _peft_model_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

STEPS = 8
LR = 1e-2
RULES = {
    "credit": {"keep": 3, "select_steps": 4},
    "credit in rounds, growing": {"keep": 3, "select_steps": 6, "rounds": 2, "expand": "qr"},
    "gates under the schedule, with warm-up": {
        "keep": 3,
        "select_steps": 6,
        "selection": "stoiht",
        "omega_lr": 2.0,
        "omega_follows_lr": True,
        "warmup_steps": 2,
        "rounds": 2,
        "expand": "random",
    },
}


class Module(LightningModule):
    """One batch an epoch, and the LR falls at every step."""

    parts = 1

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.model = lora_bert() if model is None else model
        self.losses: list[float] = []

    def train_dataloader(self):
        whole, size = batch(self.current_epoch), 8 // self.parts
        rows = [{key: value[i * size : (i + 1) * size] for key, value in whole.items()} for i in range(self.parts)]
        return DataLoader(rows, batch_size=None)

    def training_step(self, batch, index):
        loss = self.model(**batch).loss
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimizer = adamw(self.model, LR, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_trainer(*callbacks, **arguments) -> Trainer:
    usual = {"max_epochs": STEPS, "accelerator": "cpu", "devices": 1, "logger": False}
    usual |= {"enable_progress_bar": False, "enable_model_summary": False, "reload_dataloaders_every_n_epochs": 1}
    return Trainer(callbacks=[*callbacks], **usual | arguments)


def fit(directory, settings, module=None, ckpt_path=None, callbacks=(), **arguments):
    module = Module() if module is None else module
    callback = WeightLoraLightningCallback(WeightLoraConfig(**settings))
    save = ModelCheckpoint(directory, filename="{step}", every_n_epochs=1, save_top_k=-1)
    trainer = make_trainer(save, callback, *callbacks, **arguments)
    trainer.fit(module, ckpt_path=ckpt_path)
    return module, callback, trainer


def by_hand(settings) -> tuple[WeightLora, list[float]]:
    module = Module()
    chosen = module.configure_optimizers()
    optimizer, schedule = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
    selector = WeightLora(module.model.train(), optimizer, WeightLoraConfig(**settings))
    losses = []
    for step in range(STEPS):
        loss = module.model(**batch(step)).loss
        loss.backward()
        optimizer.step()
        selector.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return selector, losses


@pytest.fixture(scope="module", params=list(RULES)[1:])
def whole(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory, RULES[request.param], *fit(directory, RULES[request.param])


def test_lightning_chooses_and_trains_as_a_plain_loop_does(whole):
    """Bit for bit."""
    _, settings, module, callback, trainer = whole
    expected, losses = by_hand(settings)
    assert callback.selector.state_dict() == expected.state_dict(), "kept, scores, gates, ranks, scalings, history"
    assert len(callback.selector.kept) == 3 and module.losses == losses
    for (name, value), other in zip(module.model.named_parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(value, other), name
    assert [adapter.name for adapter in find_adapters(module.model)] == expected.kept
    assert trainer.callback_metrics["weightlora/active_adapters"] == 3
    held = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.model.modules())
    assert not trainer.optimizers[0]._optimizer_step_post_hooks and "on_load_checkpoint" not in vars(module)


# Warm-up, selection, between the rounds, right after the disconnect (and the expansion), and after it.
@pytest.mark.parametrize("cut", [1, 3, 4, 6, 7])
def test_resuming_is_bit_for_bit_no_interruption(whole, tmp_path, cut):
    directory, settings, module, callback, _ = whole
    torch.manual_seed(cut)
    resumed, other, _ = fit(tmp_path, settings, ckpt_path=directory / f"step={cut}.ckpt")
    assert other.selector.state_dict() == callback.selector.state_dict()
    assert resumed.losses == module.losses[cut:]
    assert resumed.state_dict().keys() == module.state_dict().keys()
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name


def assert_same_scores(one: WeightLora, other: WeightLora) -> None:
    assert one.kept == other.kept and one.step_count == other.step_count
    assert list(one.scores.values()) == pytest.approx(list(other.scores.values()), rel=1e-3, abs=1e-9)


class Halves(Module):
    parts = 2


@pytest.mark.parametrize("rule", ["credit", "gates under the schedule, with warm-up"])
def test_accumulation_and_a_loss_scale_change_no_evidence(tmp_path, rule):
    expected, _ = by_hand(RULES[rule])
    _, callback, _ = fit(tmp_path, RULES[rule], Halves(), accumulate_grad_batches=2)
    assert_same_scores(callback.selector, expected)
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    scaled.forward_context = nullcontext  # float32 under a real scaler
    _, callback, _ = fit(tmp_path, RULES[rule], plugins=[scaled])
    assert_same_scores(callback.selector, expected)


def test_the_probe_reads_all_parts_of_a_step(tmp_path):
    settings = {"selection": "gradient", "keep": 3, "probe_batches": 1}
    _, whole, _ = fit(tmp_path / "whole", settings)
    _, parts, _ = fit(tmp_path / "parts", settings, Halves(), accumulate_grad_batches=2)
    assert_same_scores(parts.selector, whole.selector)


class Spoiled(Module):
    def training_step(self, batch, index):
        return super().training_step(batch, index) * (math.inf if self.current_epoch == 2 else 1.0)


@pytest.mark.parametrize("rule", ["credit", "gates under the schedule, with warm-up"])
@pytest.mark.parametrize("scale", [2.0**10, 1.0])
def test_a_step_that_the_scaler_skips_is_no_selection_step(tmp_path, rule, scale):
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
    scaled.forward_context = nullcontext
    _, callback, _ = fit(tmp_path, RULES[rule], Spoiled(), plugins=[scaled])
    assert scaled.scaler.get_scale() == scale / 2, "one step was skipped"
    steps = RULES[rule]["select_steps"]
    assert [entry["step"] for entry in callback.selector.history if "score" in entry] == list(range(1, steps + 1))
    state = torch.load(tmp_path / f"step={steps}.ckpt", weights_only=True)["callbacks"][callback.state_key]
    assert state["step_count"] == steps - 1
    assert len(callback.selector.kept) == 3


@pytest.mark.parametrize("settings", [{"select_steps": 4}, {"select_steps": 1}], ids=["before", "after"])
def test_a_training_that_diverges_stops_with_good_weights_and_says_where_to_go_back_to(tmp_path, settings):
    module = Spoiled()
    with pytest.raises(TrainingError, match=r"^the gradient of '.*' is NaN or infinite: .*, and resume from .*step=2"):
        fit(tmp_path, {"keep": 3, "selection": "random"} | settings, module)
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert (tmp_path / "step=2.ckpt").is_file()


def test_training_that_ends_early_decides_at_its_end_and_warns(tmp_path):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = pl_module.current_epoch == 2

    with pytest.warns(UserWarning, match=r"training ended after 3 of 4 selection steps: the choice is made now"):
        module, callback, _ = fit(tmp_path, RULES["credit"], callbacks=[Stop()])
    assert [adapter.name for adapter in find_adapters(module.model)] == callback.selector.kept
    assert len(callback.selector.kept) == 3 and len(module.losses) == 3


def test_a_checkpoint_of_the_chosen_adapters_is_tested_on_a_fresh_module(tmp_path):
    class Tested(Module):
        def test_step(self, batch, index):
            self.log("test_loss", self.model(**batch).loss)

    module, callback, trainer = fit(tmp_path, RULES["credit"], Tested())
    rows = DataLoader([batch(0)], batch_size=None)
    expected = trainer.test(module, rows, verbose=False)
    with pytest.raises(ValueError, match="the state is of 12 adapters, and this model has 3"):
        trainer.test(module, rows, ckpt_path=tmp_path / "step=1.ckpt", verbose=False)
    fresh, again = Tested(), WeightLoraLightningCallback(callback.config)
    assert make_trainer(again).test(fresh, rows, ckpt_path=tmp_path / "step=8.ckpt", verbose=False) == expected
    assert [adapter.name for adapter in find_adapters(fresh.model)] == callback.selector.kept
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    assert trainer.test(module, rows, ckpt_path=tmp_path / "weights.ckpt", verbose=False) == expected
    with pytest.raises(ValueError, match="this checkpoint holds no selection"):
        fit(tmp_path, RULES["credit"], ckpt_path=tmp_path / "weights.ckpt")


def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path):
    module = Module()
    with pytest.raises(ValueError, match="select_steps=9 is longer than the training of 8 steps: lower it"):
        fit(tmp_path, {"keep": 3, "select_steps": 9}, module)
    with pytest.raises(ValueError, match="Module has no PEFT adapters in it"):
        fit(tmp_path, RULES["credit"], Module(tiny_bert()))
    fit(tmp_path, {"keep": 3, "select_steps": 4}, max_epochs=4)
    for settings, other, message in [
        ({"keep": 4}, None, "saved with keep=3, and the config says 4"),
        ({}, Module(lora_bert(layers=3)), "the state is of 12 adapters, and this model has 18"),
        ({}, Module(lora_bert(r=8)), "has rank 8 and 256 parameters, and had rank 4 and 128"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, {"keep": 3, "select_steps": 4} | settings, other, ckpt_path=tmp_path / "step=3.ckpt")
    assert module.losses == [] and len(find_adapters(module.model)) == 12
    bare = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    bare["callbacks"] = {}
    torch.save(bare, tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match="this checkpoint holds no selection"):
        fit(tmp_path, {"keep": 3, "select_steps": 4}, ckpt_path=tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match=r"^ModelParallelStrategy fixes the layout of all parameters before training"):
        fake = SimpleNamespace(strategy=object.__new__(ModelParallelStrategy))
        WeightLoraLightningCallback().setup(fake, module, "fit")
    for strategy in ("ddp_spawn", "ddp_fork"):
        spawning = Trainer(strategy=strategy, accelerator="cpu", devices=2, logger=False)
        with pytest.raises(ModelError, match=r"would keep all adapters: set strategy='ddp'"):
            WeightLoraLightningCallback().setup(spawning, module, "fit")


class TakesBatches(Module):
    """Lightning's experimental kind of step."""

    def training_step(self, dataloader_iter):
        return super().training_step(next(dataloader_iter)[0], 0)


def test_a_step_that_takes_its_batches_itself_chooses_while_training(tmp_path):
    module = TakesBatches()
    with pytest.raises(
        ConfigError, match=r"^training_step\(dataloader_iter\) of TakesBatches .* set selection='credit'"
    ):
        fit(tmp_path / "gradient", {"keep": 3}, module)
    assert module.losses == []
    usual, expected, _ = fit(tmp_path / "usual", RULES["credit"])
    module, callback, _ = fit(tmp_path / "credit", RULES["credit"], TakesBatches())
    assert callback.selector.kept == expected.selector.kept and module.losses == usual.losses


class ManySteps(Module):
    """As many steps of the optimizer in each batch."""

    automatic_optimization = False

    def training_step(self, batch, index):
        for _ in range(3):
            self.manual_backward(super().training_step(batch, index))
            self.optimizers().step()
            self.optimizers().zero_grad()


def test_several_steps_in_one_batch_count_until_the_round_is_full(tmp_path):
    _, callback, _ = fit(tmp_path, {"keep": 3, "select_steps": 5, "rounds": 2}, ManySteps())
    history = callback.selector.history
    assert [entry["step"] for entry in history if "score" in entry] == [1, 2, 3, 4, 5]
    assert [(entry["step"], len(entry["kept"])) for entry in history if "kept" in entry] == [(3, 6), (5, 3)]


def test_a_config_that_the_module_keeps_is_no_peft_model(tmp_path):
    module = Module()
    module.peft_config = module.model.peft_config["default"]
    fit(tmp_path, {"keep": 3}, module, max_epochs=4)
    assert len(find_adapters(module.model)) == 3


def test_a_fit_that_fails_leaves_nothing_on_the_module(tmp_path):
    class Failing(Module):
        def on_train_batch_end(self, *_):
            raise RuntimeError("the power went out")

    module = Failing()
    with pytest.raises(RuntimeError, match="the power went out"):
        fit(tmp_path, {"keep": 3}, module)
    assert "on_load_checkpoint" not in vars(module)


def test_of_two_peft_models_the_one_that_trains_is_chosen_from(tmp_path):
    module = Module()
    module.teacher = module.model
    module.teacher.requires_grad_(False)
    module.model = lora_bert()
    fit(tmp_path, {"keep": 3}, module, max_epochs=4)
    assert len(find_adapters(module.model)) == 3 and len(find_adapters(module.teacher, check=False)) == 12
    module = Module()
    kept = nn.ModuleDict({"base": module.model.get_base_model(), "model": module.model})  # the base is no second one
    assert _peft_model_of(kept) is module.model
    module.other = lora_bert()
    with pytest.raises(ValueError, match=r"^Module has 2 PEFT models that train \(model, other\), and modules are"):
        fit(tmp_path, {"keep": 3}, module, max_epochs=4)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_checkpoint_is_one_with_the_chosen_adapters(tmp_path, mode):
    class Watched(Module):
        def on_train_batch_end(self, *_):
            self.log("watched", float(self.global_step) * (1 if mode == "min" else -1))

    best = ModelCheckpoint(tmp_path / "best", "{step}", monitor="watched", mode=mode, every_n_train_steps=1)
    with pytest.warns(
        UserWarning, match=r"step=2\.ckpt was the best checkpoint, but has the adapters from before the choice"
    ):
        fit(tmp_path, {"keep": 3, "select_steps": 4}, Watched(), callbacks=[best])
    saved = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    assert sum("lora_A" in name for name in saved) == 3


def test_early_stopping_counts_from_the_choice(tmp_path):
    """The loss jumps at the choice, and falls after it in each step: that is no reason to stop."""

    class Jumps(Module):
        def on_train_batch_end(self, *_):
            self.log("watched", self.global_step * -0.1 + (10 if self.global_step >= 4 else 0))

    stopping = EarlyStopping("watched", patience=2, check_on_train_epoch_end=True)
    _, _, trainer = fit(tmp_path, {"keep": 3, "select_steps": 4}, Jumps(), callbacks=[stopping])
    assert trainer.global_step == STEPS
    assert float(stopping.best_score) == pytest.approx(10 - 0.1 * STEPS)


def test_a_second_fit_with_the_same_callback_does_not_choose_again_and_its_advice_works(tmp_path):
    module, callback, trainer = fit(tmp_path, RULES["credit"])
    trainer.fit_loop.max_epochs = STEPS + 4
    message = (
        r"^this callback has chosen 3 adapters of this model in an earlier fit\(\): to train them on, call "
        r"trainer\.callbacks\.remove\(callback\) first; to choose again, build a new model and a new Trainer\.$"
    )
    with pytest.raises(ModelError, match=message):
        trainer.fit(module)
    before = [adapter.factors[1].detach().clone() for adapter in find_adapters(module.model)]
    trainer.callbacks.remove(callback)
    trainer.fit(module)
    after = find_adapters(module.model)
    assert [adapter.name for adapter in after] == callback.selector.kept and len(module.losses) == STEPS + 4
    assert not any(torch.equal(one, other.factors[1]) for one, other in zip(before, after, strict=True))


class Sized(Module):
    """The same batch in each epoch, because tuners of Lightning 2.5 leave the first one out."""

    batch_size = 8

    def train_dataloader(self):
        return DataLoader([batch(0)], batch_size=None)


TUNED = (RULES["credit"], {"keep": 3})


@pytest.fixture(scope="module")
def untuned(tmp_path_factory):
    """The histories without a tuner."""
    histories = []
    for settings in TUNED:
        callback = WeightLoraLightningCallback(WeightLoraConfig(**settings))
        place = {"default_root_dir": tmp_path_factory.mktemp("untuned"), "enable_checkpointing": False}
        make_trainer(callback, max_epochs=5, **place).fit(Sized())
        histories.append(callback.selector.history)
    return histories


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "tuner",
    [
        lambda: LearningRateFinder(num_training_steps=3, update_attr=False),
        lambda: BatchSizeFinder(max_trials=1, steps_per_trial=1),
    ],
)
def test_a_tuner_that_brings_the_module_back_changes_no_choice(tmp_path, untuned, tuner, first):
    """Also for a second model, which is not brought back to what was chosen of the first one."""
    for settings, expected in zip(TUNED, untuned, strict=True):
        callback = WeightLoraLightningCallback(WeightLoraConfig(**settings))
        for seed in (0, 1):
            module = Sized()
            if seed:
                for adapter in find_adapters(module.model):
                    torch.nn.init.normal_(adapter.factors[0])
            callbacks = [tuner(), callback] if first else [callback, tuner()]
            make_trainer(*callbacks, max_epochs=5, default_root_dir=tmp_path, enable_checkpointing=False).fit(module)
            same = callback.selector.history == expected
            assert same == (not seed) and len(callback.selector.history) == len(expected)


def test_averages_of_a_module_that_still_has_all_adapters_are_refused_in_one_sentence(tmp_path):
    message = r"^StochasticWeightAveraging averages a copy of the module that has all adapters: choose them in a fit "
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, RULES["credit"], callbacks=[StochasticWeightAveraging(1e-3)])
    module, callback, trainer = fit(tmp_path, RULES["credit"])
    trainer.callbacks.remove(callback)  # as the message advises
    trainer.callbacks.append(StochasticWeightAveraging(1e-3, swa_epoch_start=1))
    trainer.fit_loop.max_epochs = STEPS + 4
    trainer.fit(module)
    assert [adapter.name for adapter in find_adapters(module.model)] == callback.selector.kept


def test_a_new_model_is_selected_anew_by_the_same_callback(tmp_path):
    callback = WeightLoraLightningCallback(WeightLoraConfig(**RULES["credit"]))
    histories = []
    for _ in range(2):
        make_trainer(callback, enable_checkpointing=False).fit(Module())
        histories.append(callback.selector.history)
    assert histories[0] == histories[1] and len(histories[0]) == 5


def test_the_numbers_the_warnings_the_tag_and_the_run_directory_are_those_of_the_other_callback(tmp_path):
    settings = {"keep": 3, "select_steps": STEPS, "selection": "stoiht"}
    with pytest.warns(UserWarning, match="select_steps=8 is the whole training, so no step is left"):
        module, callback, trainer = fit(tmp_path, settings, logger=CSVLogger(tmp_path))
    gates = [gate for gate in callback.selector.omega.values() if gate]
    assert trainer.callback_metrics["weightlora/gate_max"] == pytest.approx(max(gates), rel=1e-6)
    assert module.model.get_base_model().model_tags == ["weightlora"]
    assert read_lines(tmp_path / "lightning_logs" / "version_0" / HISTORY) == callback.selector.history


class Stream(IterableDataset):
    """It does not say how many batches it has."""

    def __iter__(self):
        return map(batch, range(STEPS))


@pytest.mark.parametrize("settings", [{"keep": 3}, {"keep": 3, "select_steps": 4}], ids=["probe", "credit"])
def test_epochs_of_a_stream_are_a_training_of_unknown_length(tmp_path, settings):
    class Streamed(Module):
        def train_dataloader(self):
            return DataLoader(Stream(), batch_size=None)

    module, callback, _ = fit(tmp_path, settings, Streamed(), max_epochs=1)
    assert len(callback.selector.kept) == 3 and len(find_adapters(module.model)) == 3
    with pytest.raises(
        ValueError, match=r"select_steps=0\.5 is a fraction of the training, whose length is not known"
    ):
        fit(tmp_path, {"keep": 3, "select_steps": 0.5}, Streamed(), max_epochs=1)


def test_a_fraction_of_the_training_is_resolved_when_it_begins(tmp_path):
    _, callback, trainer = fit(tmp_path, {"keep": 3, "select_steps": 0.5})
    assert callback.selector.step_count == STEPS // 2 and "weightlora/gate_max" not in trainer.callback_metrics
    with pytest.raises(ConfigError, match="is a fraction of the training, whose length is not known"):
        fit(tmp_path, {"keep": 3, "select_steps": 0.5}, max_epochs=-1)


@pytest.mark.slow
def test_two_processes_choose_and_train_as_one_does(tmp_path):
    settings = RULES["credit in rounds, growing"]
    launch("lightning", 2, json.dumps(settings), str(tmp_path))
    first, second = outcomes(tmp_path, 2)
    expected, losses = by_hand(settings)
    assert first["kept"] == second["kept"] == expected.kept
    mean = torch.tensor([first["losses"], second["losses"]]).mean(0)
    torch.testing.assert_close(mean, torch.tensor(losses), atol=1e-4, rtol=0)
