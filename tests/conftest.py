"""What holds for every test: no network, one thread, fixed seeds."""

import gc
import os
import random

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# A slow example on a busy machine is no bug. In CI the examples are the same every time, as in Hypothesis's own CI
# profile: a change does not fail for what another one left. Everywhere else they are new ones.
settings.register_profile("weightlora", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("weightlora")


def pytest_collectstart() -> None:
    """To collect the tests imports everything, and leaves no garbage that matters."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What is imported by now stays, and need not be looked at again: Trainer collects all garbage at each end of a
    training, which took longer than a short training itself."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seeds every generator before each test, so that none depends on those that ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0
