import pytest, warnings
from loops import CREDIT, make_trainer
from models import lora_bert
from transformers import Trainer
from runs import At

from weightlora import WeightLoraCallback, WeightLoraConfig, WeightLoraTrainer
from weightlora.errors import ConfigError


def test_a_config_among_the_callbacks_is_refused_in_one_sentence(tmp_path):
    message = r"^callbacks holds a WeightLoraConfig, which is no callback: pass it as weightlora=config\.$"
    for wrong in (WeightLoraConfig(**CREDIT), WeightLoraConfig):
        with pytest.raises(ConfigError, match=message):
            make_trainer(tmp_path, lora_bert(), wrong, kind=WeightLoraTrainer)


def test_a_callback_as_the_settings_is_refused_in_one_sentence(tmp_path):
    callback = WeightLoraCallback(WeightLoraConfig(**CREDIT))
    with pytest.raises(ConfigError, match=r"^weightlora is a WeightLoraCallback: pass it among callbacks=\[\.\.\.\], or"):
        make_trainer(tmp_path, lora_bert(), kind=WeightLoraTrainer, weightlora=callback)
    with pytest.raises(ConfigError, match=r"^weightlora is a dict: pass a WeightLoraConfig\.$"):
        make_trainer(tmp_path, lora_bert(), kind=WeightLoraTrainer, weightlora={"keep": 3})


def test_saving_before_the_choice_warns_and_the_card_says_so(tmp_path):
    run = make_trainer(tmp_path, lora_bert(), kind=WeightLoraTrainer, weightlora=WeightLoraConfig(**CREDIT))
    run.add_callback(At(2, lambda **_: run.save_model(str(tmp_path / "early"))))
    with pytest.warns(UserWarning, match=r"is saved after 2 of 4 selection steps: it holds all 12 adapters, for the"):
        run.train()
    card = (tmp_path / "early" / "README.md").read_text()
    assert "The choice is not made yet" in card and "2 of 4 selection steps" in card
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*selection steps")
        run.save_model(str(tmp_path / "final"))
    assert "3 of 12 LoRA adapters were kept" in (tmp_path / "final" / "README.md").read_text()


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
