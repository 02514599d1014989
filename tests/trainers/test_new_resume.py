import shutil
import pytest
from runs import ROUNDS, build, outcome, same
from models import lora_bert
from transformers import Trainer

from weightlora import WeightLoraCallback
from weightlora.errors import StateError
from weightlora.state import STATE_FILE
from weightlora.adapters import find_adapters


CASES = {"credit": {"keep": 3, "select_steps": 5}, "rounds": ROUNDS}


@pytest.fixture(scope="module", params=CASES)
def whole(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    trainer = build(directory, CASES[request.param])
    trainer.train()
    return directory, CASES[request.param], outcome(trainer)


def outcome_of(trainer):
    trainer.weightlora = next(c for c in trainer.callback_handler.callbacks if isinstance(c, WeightLoraCallback))
    return outcome(trainer)


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_plain_trainer_with_the_callback_resumes_bit_for_bit(whole, tmp_path, cut):
    directory, settings, expected = whole
    shutil.copytree(directory / f"checkpoint-{cut}", tmp_path / f"checkpoint-{cut}")
    trainer = build(tmp_path, settings, kind=Trainer)
    trainer.train(resume_from_checkpoint=True)
    same(outcome_of(trainer), expected)


def test_so_it_does_where_the_model_comes_from_model_init(whole, tmp_path):
    directory, settings, _ = whole
    trainer = build(tmp_path, settings, kind=Trainer)
    trainer.model_init = lambda: lora_bert(dropout=0.1)
    trainer.train(resume_from_checkpoint=str(directory / "checkpoint-7"))
    assert len(find_adapters(trainer.model)) == 3 and trainer.state.global_step == 8


def test_a_plain_trainer_refuses_a_checkpoint_without_our_state(whole, tmp_path):
    directory, settings, _ = whole
    shutil.copytree(directory / "checkpoint-7", tmp_path / "checkpoint-7")
    (tmp_path / "checkpoint-7" / STATE_FILE).unlink()
    trainer = build(tmp_path, settings, kind=Trainer)
    with pytest.raises(StateError, match=r"weightlora_state\.json is missing"):
        trainer.train(resume_from_checkpoint=True)
