"""Two real processes under DDP: the choice of one process with the same global batch, nothing dead in the reducer."""

import json

import pytest
import torch
import transformers
import workers
from models import adamw, lora_bert, train
from packaging.version import Version
from processes import RULES, launch, outcomes

from weightlora import WeightLora, WeightLoraConfig


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
        assert [found[rule]["unlike_saved"] for found in (alone, first, second)] == [0.0] * 3
        # What the reducer holds is what is trainable, before and after.
        assert first[rule]["reduced_before"] == first[rule]["trainable_before"]
        assert first[rule]["reduced_after"] == first[rule]["trainable_after"]
        if "expand" not in RULES[rule]:
            assert first[rule]["reduced_after"] < first[rule]["reduced_before"]


@pytest.mark.slow
def test_every_way_of_ddp_keeps_the_processes_in_step_and_its_hooks_at_work(tmp_path):
    launch("ways", 2, str(tmp_path))
    model = lora_bert()
    optimizer = adamw(model)
    selector = WeightLora(model, optimizer, WeightLoraConfig(keep=3, select_steps=workers.CHOICE))
    alone = torch.tensor(train(model, optimizer, selector, steps=8))
    first, second = outcomes(tmp_path, 2)
    for way in workers.WAYS:
        assert first[way]["apart"] == [0.0] * 8, way
        assert first[way]["kept"] == second[way]["kept"] == selector.kept, way
        losses = torch.tensor([first[way]["losses"], second[way]["losses"]]).mean(0)
        torch.testing.assert_close(losses, alone, atol=1e-3 if "hook" in way else 1e-4, rtol=0, msg=way)
    assert first["fp16 hook"]["hook"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {*first["built-in fp16 hook"]["hook"]} == {"BuiltinCommHookType.FP16_COMPRESS"}
    # It begins after two steps, and again after two from the choice on, which it forgets its old buckets at.
    assert first["PowerSGD hook"]["hook"] == [0, 0, 0, 0, 0, 1, 1, 1]


@pytest.mark.slow
def test_uneven_inputs_under_join_are_served_after_the_choice_and_stop_before_it_in_one_sentence(tmp_path):
    launch("joined", 2, str(tmp_path), "6", "5", "4", "3", "8")  # batches of one; the choice is made at step 3
    first, second = outcomes(tmp_path, 2)
    for one, other in zip(first, second, strict=True):
        assert one["kept"] == other["kept"] and len(one["kept"]) == 3
        assert one["apart"] == other["apart"] == 0.0 and one["trainable"] == other["trainable"]
    done = launch("joined", 2, str(tmp_path), "2", check=False)
    assert done.returncode != 0
    assert "1 of 2 processes ran out of batches in the selection phase" in done.stderr


@pytest.mark.slow
def test_a_choice_may_be_made_before_ddp_wraps_the_model_whose_inputs_are_uneven(tmp_path):
    launch("late", 2, str(tmp_path))
    first, second = outcomes(tmp_path, 2)
    assert first == second and all(len(one["kept"]) == 3 and one["apart"] == 0.0 for one in first)


@pytest.mark.slow
def test_processes_that_part_after_a_choice_stop_together_and_those_that_parted_before_are_told(tmp_path):
    launch("parted", 2, str(tmp_path))
    for outcome in outcomes(tmp_path, 2):
        sentence = "2 processes trained the same weights before adapters left the model, and different ones"
        assert outcome["after"]["stopped"].startswith(f"3: {sentence} 1 step(s) after it")
        assert outcome["a step after"]["stopped"].startswith(f"4: {sentence} 2 step(s) after it")
        assert outcome["replica"]["stopped"].startswith(f"3: {sentence} 1 step(s) after it")
        for case in ("later", "before", "shard"):  # nothing is compared, or nothing is there to compare
            assert outcome[case]["stopped"] == "", case
        warned = {case: found["warned"] for case, found in outcome.items() if found["warned"]}
        assert warned.keys() == {"before"}
        assert warned["before"].startswith("the processes hold different weights already at the choice")


# Before 5.18, a Trainer reads the optimizer's state to "cpu:0" under DDP on CPUs, which PyTorch does not know.
@pytest.mark.skipif(Version(transformers.__version__) < Version("5.18"), reason="needs Transformers 5.18")
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
    assert left == {"checkpoint-3", "history.jsonl", "log.jsonl", "selection.json"}
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    workers.trainer(str(tmp_path / "3"), unused, "resume")
    resumed = outcomes(tmp_path / "3", 1)[0]
    assert resumed["kept"] == alone["kept"]
    torch.testing.assert_close(torch.tensor(resumed["losses"]), torch.tensor(alone["losses"]), atol=1e-4, rtol=0)
