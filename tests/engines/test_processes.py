"""Processes decide alike, or stop together."""

import pytest
from processes import launch, outcomes


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


@pytest.mark.slow
def test_a_process_that_fails_in_the_probe_stops_the_others_at_once(tmp_path):
    launch("fail", 2, str(tmp_path))
    other, failing = outcomes(tmp_path, 2)
    own = {
        "reading": "OSError: no such row",
        "loss": "IndexError: no such class",
        "NaN": "TrainingError: the loss of batch 2 of the probe is nan: check the data.",
        "stopped": "KeyboardInterrupt: ",
    }
    # What is odd is told as far as it can be, and does not hide the error itself.
    assert failing.pop("odd").startswith("OSError: \udcffxxx")
    assert other.pop("odd").startswith(
        "TrainingError: process 1 failed in reading batch 2 of the probe (OSError: \\udcffxxx"
    )
    assert len(failing.pop("none")) == 3 == len(other.pop("none")), "the processes can go on together"
    assert failing == own
    for case, error in own.items():
        assert other[case].startswith("TrainingError: process 1 failed in ") and f"({error})" in other[case]
