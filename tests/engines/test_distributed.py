"""Two real processes under DDP: the choice of one process with the same global batch, nothing dead in the reducer."""

import json

import pytest
import torch
import workers
from models import adamw, batch, lora_bert, tiny_bert
from processes import ACCELERATE, TORCHRUN, launch, outcomes

from weightlora.adapters import find_adapters

STEPS = 8

RULES = {
    "credit": {"keep": 3, "select_steps": 4},
    "gates": {"keep": 3, "select_steps": 4, "selection": "stoiht", "omega_lr": 1.0, "warmup_steps": 2},
    "chance": {"keep": 3, "select_steps": 4, "selection": "random", "seed": 3},
    "credit in rounds, growing": {"keep": 3, "select_steps": 4, "rounds": 2, "expand": "random"},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process chooses and loses under each rule."""
    directory = tmp_path_factory.mktemp("alone")
    (directory / "rules.json").write_text(json.dumps(RULES))
    launch("loop", 1, str(directory / "rules.json"), str(directory), "no_unused")
    return outcomes(directory, 1)[0]


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
    assert [path.name for path in (tmp_path / "3").iterdir()] == ["checkpoint-3"]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    workers.trainer(str(tmp_path / "3"), unused, "resume")
    resumed = outcomes(tmp_path / "3", 1)[0]
    assert resumed["kept"] == alone["kept"]
    torch.testing.assert_close(torch.tensor(resumed["losses"]), torch.tensor(alone["losses"]), atol=1e-4, rtol=0)


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


@pytest.mark.slow
def test_fsdp2_chooses_and_trains_as_one_process_does_and_holds_only_survivors(tmp_path, alone):
    rules = {name: settings for name, settings in RULES.items() if "expand" not in settings}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    launch("sharded", 2, str(tmp_path / "rules.json"), str(tmp_path), "no_unused")
    first, second = outcomes(tmp_path, 2)
    for rule in rules:
        assert first[rule]["kept"] == second[rule]["kept"] == alone[rule]["kept"], rule
        losses = torch.tensor([first[rule]["losses"], second[rule]["losses"]]).mean(0)
        torch.testing.assert_close(losses, torch.tensor(alone[rule]["losses"]), atol=1e-4, rtol=0)
        scores = (torch.tensor(outcome[rule]["scores"]) for outcome in (first, alone))
        torch.testing.assert_close(*scores, atol=1e-6, rtol=1e-2)
        # Bytes of float32 in the shards of both processes, padding of uneven cuts aside.
        sharded = [first[rule][when] + second[rule][when] for when in ("bytes_before", "bytes_after")]
        gone = alone[rule]["trainable_before"] - alone[rule]["trainable_after"]
        assert sharded[0] - sharded[1] == 4 * gone
        assert first[rule]["refused"].startswith("expand='qr' cannot grow what FSDP has sharded")


PHASED = {
    "credit": {"keep": 2, "select_steps": 3},
    "gates in rounds": RULES["gates"] | {"keep": 2, "select_steps": 4, "rounds": 2},
    "chance, at once": {"keep": 2, "select_steps": 0, "selection": "random"},
    "credit, at the last step": {"keep": 2, "select_steps": 6},
}


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "rules"), [(TORCHRUN, list(PHASED)), (ACCELERATE, ["credit"])])
def test_fsdp1_in_two_phases_chooses_and_trains_as_one_process_does(tmp_path, launcher, rules):
    from peft import PeftModel
    from workers import phased

    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    (tmp_path / "rules.json").write_text(json.dumps({name: PHASED[name] for name in rules}))
    phased(str(tmp_path / "rules.json"), str(tmp_path / "alone"))
    alone = outcomes(tmp_path / "alone", 1)[0]
    launch("phased", 2, str(tmp_path / "rules.json"), str(tmp_path / "together"), by=launcher)
    first, second = outcomes(tmp_path / "together", 2)
    for rule in rules:
        one = alone[rule]
        assert first[rule]["kept"] == second[rule]["kept"] == one["kept"] and len(one["kept"]) == 2, rule
        assert first[rule]["losses"] == second[rule]["losses"]
        torch.testing.assert_close(torch.tensor(first[rule]["losses"]), torch.tensor(one["losses"]), atol=1e-4, rtol=0)
        scores = (torch.tensor(outcome[rule]["scores"]) for outcome in (first, alone))
        torch.testing.assert_close(*scores, atol=1e-6, rtol=1e-2)
        assert first[rule]["logged"] == one["logged"], "step, learning rate, adapters, their parameters"
        # Bytes that the two hold together, and what one holds alone; after the last step there is no optimizer.
        for what in ("trainable", "moments") if "last step" not in rule else ("trainable",):
            assert first[rule][what] + second[rule][what] == one[what]
        outputs = []
        for name in ("alone", "together"):
            plain = PeftModel.from_pretrained(tiny_bert(layers=1), tmp_path / name / rule / "final").eval()
            outputs.append(plain(**batch(0)).logits)
            assert {adapter.name for adapter in find_adapters(plain, check=False)} == set(one["kept"])
        torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)
    for resumed in ("before", "at", "after") if launcher is TORCHRUN else ():  # before the choice, at it, after it
        assert first["credit"][resumed]["kept"] == alone["credit"]["kept"]
        losses = torch.tensor(first["credit"][resumed]["losses"])
        torch.testing.assert_close(losses, torch.tensor(alone["credit"]["losses"]), atol=1e-4, rtol=0)
    if launcher is TORCHRUN:
        assert "cannot grow what FSDP has sharded" in first["credit"]["expand"]
        assert "save_only_model=True does not go with FSDP" in first["credit"]["save_only"]


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [("FullyShardedDataParallel", "use WeightLoraTrainer"), ("DeepSpeedEngine", "under DDP or FSDP")],
)
def test_what_cannot_give_up_parameters_is_refused(kind, remedy):
    from weightlora import WeightLora

    model = lora_bert()
    optimizer = adamw(model)
    engine = type(kind, (torch.nn.Module,), {})()
    engine.inner = model
    with pytest.raises(ValueError, match=f"from which parameters cannot leave: .*{remedy}"):
        WeightLora(engine, optimizer)
