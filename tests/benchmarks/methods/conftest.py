import pytest
from models import tiny_bert

from weightlora.train.methods import Setting


@pytest.fixture
def setting():
    """Makes a setting on a tiny BERT whose queries and values may be adapted."""

    def make(**changes):
        values = {"rank": 4, "alpha": 8, "dropout": 0.0, "keep": 2, "select_steps": 3, "steps": 6, "seed": 0}
        targets = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
        return Setting(model=tiny_bert(), target=targets, batches=lambda: iter(()), **(values | changes))

    return make
