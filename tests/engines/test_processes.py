"""Processes decide alike, or stop together. Digests tell every change of a trainable parameter, and nothing else."""

import pytest
import torch
from models import lora_bert
from processes import launch, outcomes
from torch import nn

from weightlora.engines.processes import digest, digests_of


def test_names_in_their_order_have_one_digest_that_an_int64_holds():
    assert digest(["a", "b"]) == digest(iter(["a", "b"])) != digest(["b", "a"])
    assert torch.tensor(digest(["a"])).dtype == torch.int64


def test_two_equal_models_have_equal_digests_and_wrappers_change_nothing():
    one, other = lora_bert(), lora_bert()
    assert digests_of(one) == digests_of(other) == digests_of(torch.compile(other))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_last_bit_of_one_number_changes_the_digest_of_the_bits_alone(dtype):
    model = nn.Linear(30, 20).to(dtype)
    structure, part, bits = digests_of(model)
    with torch.no_grad():
        model.weight[3, 4] = torch.nextafter(model.weight[3, 4].float(), torch.tensor(9.0)).to(dtype)
        if dtype in (torch.bfloat16, torch.float16):
            model.weight.view(torch.int16)[3, 4] += 1
    assert digests_of(model)[:2] == [structure, part] and digests_of(model)[2] != bits


def test_frozen_parameters_do_not_count_and_missing_ones_do():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    before = digests_of(model)
    nn.init.zeros_(model[0].weight)
    assert digests_of(model) == before
    model[0].weight.requires_grad_()
    assert digests_of(model)[0] != before[0]
    assert len(digests_of(model.requires_grad_(False))) == 3, "nothing is trainable"


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
def test_processes_with_other_settings_or_models_stop_together(tmp_path):
    """They would decide at different steps: one would wait for ever, or read foreign bytes."""
    launch("differ", 2, str(tmp_path))
    own = [
        {
            "total_steps": "select_steps=4",
            "rule": "selection='credit'",
            "probe": "probe_batches=2",
            "rounds": "rounds=1",
            "model": "the adapters of the model",
        },
        {
            "total_steps": "select_steps=5",
            "rule": "selection='stoiht'",
            "probe": "probe_batches=3",
            "rounds": "rounds=2",
            "model": "the adapters of the model",
        },
    ]
    for rank, found in enumerate(outcomes(tmp_path, 2)):
        assert found.pop("seed") == "3"
        assert found.pop("probe or not").startswith("ConfigError: the processes differ in ")
        for case, said in found.items():
            assert said.startswith("ConfigError: the processes differ in "), case
            assert own[rank][case] in said and f"(in process {rank}): give all" in said, said


@pytest.mark.slow
def test_a_selector_may_be_older_than_the_process_group(tmp_path):
    launch("early", 2, str(tmp_path))
    one, other = outcomes(tmp_path, 2)
    assert one == other
    for kept, reduced, trainable, _ in one.values():
        assert len(kept) == 3 and reduced == trainable


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
