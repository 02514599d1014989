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
    # Counted, for two processes may write into one line. The one without a NaN of its own stops as well.
    assert done.stderr.count("stoiht: the evidence on adapter ") == 2
    for rule in ("credit", "random"):
        assert done.stderr.count(f"{rule}: the gradient of 'module.base_model.model.bert.encoder.layer.0") == 1
        assert done.stderr.count(f"{rule}: a gradient of another process is NaN or infinite") == 1
    assert done.stderr.count("training has diverged") == 6
