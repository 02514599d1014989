"""A short run of the selection, for the tests of what becomes of its choice."""

from models import adamw, lora_bert, train

from weightlora import WeightLora, WeightLoraConfig


def selected(model=None, steps: int = 4, **settings) -> WeightLora:
    """A selection that is over after two steps, and two more steps of training."""
    model = lora_bert() if model is None else model
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(**{"keep": 3, "select_steps": 2} | settings))
    train(model, optimizer, selector, steps)
    return selector
