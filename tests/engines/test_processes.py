"""Processes decide alike, or stop together."""

import pytest
from processes import launch


@pytest.mark.slow
def test_processes_that_disagree_or_see_a_nan_stop_together(tmp_path):
    done = launch("disagree", 2, check=False)
    assert done.returncode != 0
    assert done.stderr.count("the processes disagree on which adapters to keep") >= 2
    done = launch("nan", 2, check=False)
    assert done.returncode != 0
    for rule in ("stoiht", "credit"):  # counted, for two processes may write into one line
        told = done.stderr.count(f"{rule}: the evidence on adapter ")
        assert told == 2, "the one without a NaN of its own as well"
    assert done.stderr.count("training has diverged") == 4
