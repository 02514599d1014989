"""A subject that is measured in a moment."""

import pytest
import torch
from benchmarks.speed.models import BATCHES, Subject
from models import batch, tiny_bert


@pytest.fixture
def subject() -> Subject:
    """A BERT of two layers: 12 adapters, of which 3 are kept."""
    torch.manual_seed(0)
    modules = r".*encoder.*(query|key|value|dense)"
    target = {"target_modules": modules, "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    return Subject(tiny_bert(), [batch(step) for step in range(BATCHES)], 3, target)
