"""A callback finds the Trainer, and the handler, that run it."""

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import CallbackHandler

from weightlora.trainers.calling import calling, calling_trainer


class Inner:
    def run(self) -> object:
        return calling(Inner), calling(Outer), calling(Trainer)


class Outer:
    def run(self) -> object:
        return Inner().run()


def test_the_innermost_object_of_a_class_is_found():
    outer = Outer()
    inner, found, trainer = outer.run()
    assert isinstance(inner, Inner) and found is outer and trainer is None
    assert calling(Inner) is None and calling_trainer() is None


def test_a_callback_finds_who_calls_it(tmp_path):
    from loops import make_trainer
    from models import lora_bert

    class Asks(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.found = calling_trainer(), calling(CallbackHandler)
            control.should_training_stop = True

    asks = Asks()
    trainer = make_trainer(tmp_path, lora_bert(), asks, kind=Trainer)
    trainer.train()
    assert asks.found == (trainer, trainer.callback_handler)
