"""Our own errors: what a user can mend, and nothing else."""

import pytest
from models import adamw, lora_bert

import weightlora
from weightlora import WeightLora, WeightLoraConfig, errors


def test_all_errors_are_of_one_class_and_still_value_errors():
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert len(kinds) == 7
    assert all(issubclass(kind, weightlora.WeightLoraError) and issubclass(kind, ValueError) for kind in kinds)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (lambda: WeightLoraConfig(keep=0), errors.ConfigError),
        (lambda: WeightLora(model := lora_bert(), adamw(model), WeightLoraConfig(keep=25)), errors.ConfigError),
        (lambda: WeightLora(lora_bert(), adamw(lora_bert()), WeightLoraConfig(select_steps=4)), errors.ModelError),
        (lambda: weightlora.restore(lora_bert(), "nowhere"), errors.StateError),
    ],
)
def test_each_kind_is_raised_where_it_belongs(cause, kind):
    with pytest.raises(kind):
        cause()


def test_a_message_that_quotes_a_strange_input_keeps_its_beginning_and_its_end():
    message = str(errors.ConfigError(f"name={'x' * 10**6} is not known: choose one of a, b."))
    assert len(message) < 2100 and message.startswith("name=xxx") and message.endswith("choose one of a, b.")
    assert str(errors.ConfigError("x" * 2000)) == "x" * 2000
