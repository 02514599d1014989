"""What one process chooses, for the engines to be compared with."""

import json

import pytest
from processes import RULES, launch, outcomes


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """What one process chooses and loses under each rule."""
    directory = tmp_path_factory.mktemp("alone")
    (directory / "rules.json").write_text(json.dumps(RULES))
    launch("loop", 1, str(directory / "rules.json"), str(directory), "no_unused")
    return outcomes(directory, 1)[0]
