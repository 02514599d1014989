"""Two real processes under DDP: the choice of one process with the same global batch, nothing dead in the reducer."""

import json

import pytest
import torch
import workers
from processes import RULES, launch, outcomes


@pytest.mark.slow
@pytest.mark.parametrize("unused", ["find_unused", "no_unused"])
def test_ddp_chooses_and_trains_as_one_process_does(tmp_path, alone, unused):
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    launch("loop", 2, str(tmp_path / "rules.json"), str(tmp_path), unused)
    first, second = outcomes(tmp_path, 2)
    for rule in RULES:
        assert first[rule]["kept"] == second[rule]["kept"] == alone[rule]["kept"], rule
        assert len(first[rule]["kept"]) == 3
        losses = torch.tensor([first[rule]["losses"], second[rule]["losses"]]).mean(0)
        torch.testing.assert_close(losses, torch.tensor(alone[rule]["losses"]), atol=1e-4, rtol=0)
        scores = (torch.tensor(outcome[rule]["scores"]) for outcome in (first, alone))
        torch.testing.assert_close(*scores, atol=1e-6, rtol=1e-2)
        assert first[rule]["weights"] == second[rule]["weights"], "the processes stay in step"
        # What the reducer holds is what is trainable, before and after.
        assert first[rule]["reduced_before"] == first[rule]["trainable_before"]
        assert first[rule]["reduced_after"] == first[rule]["trainable_after"]
        if "expand" not in RULES[rule]:
            assert first[rule]["reduced_after"] < first[rule]["reduced_before"]


@pytest.mark.slow
def test_the_callback_works_under_torchrun_and_resumes_on_another_number_of_processes(tmp_path, monkeypatch):
    unused = "find_unused"  # what Trainer does by itself with a PEFT model
    for processes in (1, 2):
        launch("trainer", processes, str(tmp_path / str(processes)), unused)
    alone, (first, second) = outcomes(tmp_path / "1", 1)[0], outcomes(tmp_path / "2", 2)
    assert first["kept"] == second["kept"] == alone["kept"]
    torch.testing.assert_close(torch.tensor(first["losses"]), torch.tensor(alone["losses"]), atol=1e-6, rtol=0)

    launch("trainer", 2, str(tmp_path / "1"), unused, "resume")  # what one process had saved at step 3
    resumed = outcomes(tmp_path / "1", 2)
    assert resumed[0]["kept"] == resumed[1]["kept"] == alone["kept"]
    torch.testing.assert_close(torch.tensor(resumed[0]["losses"]), torch.tensor(alone["losses"]), atol=1e-6, rtol=0)

    # A process that dies takes the other one with it, and the checkpoint from before is whole.
    assert launch("die", 2, str(tmp_path / "3"), check=False).returncode != 0
    left = {path.name for path in (tmp_path / "3").iterdir()}
    assert left == {"checkpoint-3", "history.jsonl", "selection.json"}
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    workers.trainer(str(tmp_path / "3"), unused, "resume")
    resumed = outcomes(tmp_path / "3", 1)[0]
    assert resumed["kept"] == alone["kept"]
    torch.testing.assert_close(torch.tensor(resumed["losses"]), torch.tensor(alone["losses"]), atol=1e-4, rtol=0)
