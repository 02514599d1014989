"""What the Transformers callback and the Lightning callback share: the checks, the messages and the numbers."""

import logging
import re
import warnings

import pytest
import torch
from loops import CREDIT, GATES, RULES, STEPS, make_trainer
from models import lora_bert, tiny_bert
from runs import At
from transformers import Trainer, TrainerCallback

from weightlora import WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer
from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError, ModelError, TrainingError

KINDS = [Trainer, WeightLoraTrainer]
NOTHING_AFTER = "select_steps=6 is the whole training, so no step is left"


@pytest.mark.parametrize("rule", [CREDIT, GATES], ids=["credit", "gates"])
def test_a_selection_longer_than_the_training_is_refused_before_the_first_step(tmp_path, rule):
    model = lora_bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    callback = WeightLoraCallback(WeightLoraConfig(**rule | {"select_steps": STEPS + 1}))
    run = make_trainer(tmp_path, model, callback)
    message = r"^select_steps=7 is longer than the training of 6 steps: lower it \(a fifth of the training, 2, is"
    with pytest.raises(ConfigError, match=message):
        run.train()
    assert callback.selector is None
    assert run.state.global_step == 0
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_selection_that_takes_the_whole_training_says_that_nothing_trains_after_it(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(keep=3, select_steps=STEPS))
    run = make_trainer(tmp_path, lora_bert(), callback)
    with pytest.warns(UserWarning) as caught:
        run.train()
    messages = [str(warning.message) for warning in caught]
    assert sum(NOTHING_AFTER in message for message in messages) == 1
    assert not any("training ended" in message.lower() for message in messages)
    assert callback.selector.step_count == STEPS
    assert [adapter.name for adapter in find_adapters(run.model)] == callback.selector.kept
    assert len(callback.selector.kept) == 3


def test_a_shorter_selection_says_no_such_thing(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(tmp_path, lora_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT))).train()
    assert not any("is the whole training" in str(warning.message) for warning in caught)


def test_a_fraction_of_the_training_is_resolved_when_it_begins(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(keep=3, select_steps=0.5))
    make_trainer(tmp_path, lora_bert(), callback).train()
    assert callback.config.select_steps == 0.5, "as the user gave it"
    assert callback.selector.config.select_steps == callback.selector.step_count == STEPS // 2
    assert len(callback.selector.kept) == 3


@pytest.mark.parametrize("rule", ["credit", "gates", "credit, two rounds, growing"])
def test_training_that_ends_early_decides_at_its_end_and_warns(tmp_path, rule):
    def stop(control, **kwargs):
        control.should_training_stop = True

    callback = WeightLoraCallback(WeightLoraConfig(**RULES[rule]))
    run = make_trainer(tmp_path, lora_bert(), callback, At(3, stop))
    with pytest.warns(UserWarning, match=r"training ended after 3 of 4 selection steps: the choice is made now"):
        run.train()
    assert run.state.global_step == 3
    assert callback.selector.phase == "train"
    assert [adapter.name for adapter in find_adapters(run.model)] == callback.selector.kept
    assert len(callback.selector.kept) == 3
    assert callback.selector.history[-1]["step"] == 3


def test_a_model_without_lora_is_refused_before_the_first_step(tmp_path):
    run = make_trainer(tmp_path, tiny_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT)))
    message = r"^BertForSequenceClassification has no PEFT adapters: call model = get_peft_model"
    with pytest.raises(ValueError, match=message):
        run.train()
    assert run.state.global_step == 0


def test_the_numbers_of_a_selection_that_has_not_begun_are_refused():
    with pytest.raises(TrainingError, match=r"^the selection has not begun: it begins with trainer\.train\(\)\.$"):
        WeightLoraCallback().metrics()


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_training_says_how_to_train_the_kept_adapters_on_and_that_works(tmp_path, kind):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(tmp_path, lora_bert(), callback, kind=kind, save_strategy="steps", save_steps=STEPS)
    run.train()
    message = (
        r"^this callback has chosen 3 adapters of this model in an earlier train\(\): to train them on, call "
        r"trainer\.remove_callback\(WeightLoraCallback\) first; to choose again, build a new model and a new "
        r"Trainer\.$"
    )
    with pytest.raises(ModelError, match=message):
        run.train()
    run.remove_callback(WeightLoraCallback)
    kept = callback.selector.kept
    before = [adapter.factors[1].detach().clone() for adapter in find_adapters(run.model)]
    run.train()
    run.evaluate()
    run.save_model(str(tmp_path / "out"))
    after = find_adapters(run.model)
    assert [adapter.name for adapter in after] == kept and run.state.global_step == STEPS
    assert not any(torch.equal(one, other.factors[1]) for one, other in zip(before, after, strict=True))


def test_a_second_training_after_an_interruption_does_not_claim_a_choice(tmp_path):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                raise KeyboardInterrupt

    run = make_trainer(tmp_path, lora_bert(), WeightLoraCallback(WeightLoraConfig(**CREDIT)), Interrupt())
    with pytest.raises(KeyboardInterrupt):
        run.train()
    message = (
        r"^an earlier train\(\) ended after 2 of 4 selection steps of this model: resume from a checkpoint of it, or "
        r"build a new model and a new Trainer\.$"
    )
    with pytest.raises(ModelError, match=message):
        run.train()


@pytest.mark.parametrize("settings", [{"keep": 3}, CREDIT])
def test_a_training_that_failed_before_its_first_step_begins_anew(tmp_path, settings):
    """As in a notebook: the first batch does not fit, or has no labels, and the user mends that."""

    class Fails(WeightLoraTrainer):
        fails = True

        def compute_loss(self, *args, **kwargs):
            if self.fails:
                raise ValueError("no loss")
            return super().compute_loss(*args, **kwargs)

    run, whole = (
        make_trainer(tmp_path, lora_bert(), kind=kind, weightlora=WeightLoraConfig(**settings))
        for kind in (Fails, WeightLoraTrainer)
    )
    with pytest.raises(ValueError, match="no loss"):
        run.train()
    run.fails = False
    run.train()
    whole.train()
    assert run.weightlora.selector.kept == whole.weightlora.selector.kept
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), whole.model.parameters(), strict=True))


@pytest.mark.parametrize("keep", [3, 4], ids=["the same settings", "different settings"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_callbacks_are_refused_in_one_sentence(tmp_path, kind, keep):
    first, second = (WeightLoraCallback(WeightLoraConfig(keep=k, select_steps=4)) for k in (3, keep))
    message = r"^this Trainer has 2 WeightLoraCallbacks, and a model is selected once: keep only one\.$"
    with pytest.raises(ConfigError, match=message):
        make_trainer(tmp_path, lora_bert(), first, second, kind=kind)
    run = make_trainer(tmp_path, lora_bert(), first, kind=kind)
    run.add_callback(second)
    with pytest.raises(ConfigError, match=message):
        run.train()
    assert run.state.global_step == 0


def test_what_is_no_config_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match=r"^config is a dict: pass a WeightLoraConfig\.$"):
        WeightLoraCallback({"keep": 3})


class Diverging(WeightLoraTrainer):
    """Its loss is NaN in one step."""

    nan_at: int | None = None

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        return loss * float("nan") if self.state.global_step == self.nan_at else loss


@pytest.mark.parametrize(("rule", "at"), [("credit", 0), ("credit", 2), ("credit", 5), ("gates", 2), ("chance", 5)])
def test_a_training_that_diverges_stops_with_good_weights_and_says_where_to_go_back_to(tmp_path, rule, at):
    def build(place):
        settings = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
        return make_trainer(
            place,
            lora_bert(),
            kind=Diverging,
            weightlora=WeightLoraConfig(**RULES[rule]),
            max_grad_norm=1.0,
            **settings,
        )

    run = build(tmp_path)
    run.nan_at = at
    saved = tmp_path / f"checkpoint-{at - at % 2}"
    remedy = f"resume from {saved}" if at else "start again"
    message = r"^the gradient of '.*' is NaN or infinite: training has diverged, .* Lower the learning rate, and "
    with pytest.raises(TrainingError, match=message + re.escape(remedy) + r"\.$"):
        run.train()
    assert run.state.global_step == at
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())
    if at:
        resumed = build(tmp_path)
        resumed.nan_at = at
        with pytest.raises(TrainingError, match=message + re.escape(remedy) + r"\.$"):
            resumed.train(resume_from_checkpoint=str(saved))
        resumed = build(tmp_path)
        resumed.train(resume_from_checkpoint=str(saved))
        assert resumed.state.global_step == STEPS and len(find_adapters(resumed.model)) == 3


@pytest.fixture
def log():
    """The lines of Transformers' logger."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
    logging.getLogger("transformers").addHandler(handler)
    yield lines
    logging.getLogger("transformers").removeHandler(handler)


def test_the_choice_is_summarised_once_in_transformers_log(tmp_path, log):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    run = make_trainer(tmp_path, lora_bert(), callback, log_level="info")
    run.train()
    said = [text for level, text in log if level == "INFO" and text == callback.selector.summary().text]
    assert len(said) == 1
