"""Our own Trainer, and the mixin: its arguments, the model card, and saving before the choice."""

import json
import warnings

import pytest
from loops import CREDIT, make_trainer
from models import lora_bert, samples, training_arguments
from runs import At
from transformers import TrainerCallback

from weightlora import WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer
from weightlora.adapters import find_adapters
from weightlora.errors import ConfigError
from weightlora.state import STATE_FILE


def test_the_settings_may_be_an_argument_and_the_card_tells_what_was_kept(tmp_path):
    rows, arguments = samples(8), training_arguments(tmp_path, max_steps=4, save_steps=4)
    config = WeightLoraConfig(keep=3, select_steps=2)
    trainer = WeightLoraTrainer(lora_bert(), arguments, train_dataset=rows, weightlora=config)
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

    without = WeightLoraTrainer(lora_bert(), arguments, train_dataset=rows)
    with pytest.raises(ValueError, match="this Trainer selects nothing: pass weightlora="):
        without.train()
    assert without.state.global_step == 0, "before any work"


def test_a_config_among_the_callbacks_is_refused_in_one_sentence(tmp_path):
    message = r"^callbacks holds a WeightLoraConfig, which is no callback: pass it as weightlora=config\.$"
    for wrong in (WeightLoraConfig(**CREDIT), WeightLoraConfig):
        with pytest.raises(ConfigError, match=message):
            make_trainer(tmp_path, lora_bert(), wrong, kind=WeightLoraTrainer)


def test_a_callback_as_the_settings_is_refused_in_one_sentence(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    with pytest.raises(
        ConfigError, match=r"^weightlora is a WeightLoraCallback: pass it among callbacks=\[\.\.\.\], or"
    ):
        make_trainer(tmp_path, lora_bert(), kind=WeightLoraTrainer, weightlora=callback)
    with pytest.raises(ConfigError, match=r"^weightlora is a dict: pass a WeightLoraConfig\.$"):
        make_trainer(tmp_path, lora_bert(), kind=WeightLoraTrainer, weightlora={"keep": 3})


def test_saving_before_the_choice_warns_and_the_card_says_so(tmp_path):
    run = make_trainer(tmp_path, lora_bert(), kind=WeightLoraTrainer, weightlora=WeightLoraConfig(**CREDIT))
    with pytest.warns(UserWarning, match=r"is saved before training: it holds all adapters, because the choice is"):
        run.save_model(str(tmp_path / "untrained"))
    run.add_callback(At(2, lambda **_: run.save_model(str(tmp_path / "early"))))
    with pytest.warns(UserWarning, match=r"is saved after 2 of 4 selection steps: it holds all 12 adapters, because"):
        run.train()
    card = (tmp_path / "early" / "README.md").read_text()
    assert "The choice is not made yet" in card and "2 of 4 selection steps" in card
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*selection steps")
        run.save_model(str(tmp_path / "final"))
    assert "3 of 12 LoRA adapters were kept" in (tmp_path / "final" / "README.md").read_text()


class Seen(TrainerCallback):
    """Counts the adapters, as callbacks do that average, count or save the model."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.first = len(find_adapters(model))

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = True

    def on_train_end(self, args, state, control, model, **kwargs):
        self.last = len(find_adapters(model))


@pytest.mark.parametrize(("settings", "first"), [({"keep": 3}, 3), (CREDIT, 12)])
def test_other_callbacks_get_the_model_after_a_choice_in_the_same_event(tmp_path, settings, first):
    seen = Seen()
    config = WeightLoraConfig(**settings)
    make_trainer(tmp_path, lora_bert(), seen, kind=WeightLoraTrainer, weightlora=config).train()
    assert (seen.first, seen.last) == (first, 3)
