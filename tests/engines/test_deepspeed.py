"""DeepSpeed: whole runs of two processes where it is installed, and what calls its functions on a stand-in."""

import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
from deepspeed_stand_in import DeepSpeedEngine, install
from models import adamw, batch, lora_bert, tiny_bert
from processes import RULES, launch, outcomes
from torch import nn

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import find_adapters
from weightlora.engines import DeepSpeed
from weightlora.engines.deepspeed import StandIn, refuse_engine
from weightlora.errors import ModelError, TrainingError
from weightlora.tensors import gradient_of, local

CREDIT = {"keep": 2, "select_steps": 3}
OWN = {
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "weight_decay": "auto", "betas": "auto", "eps": "auto", "torch_adam": True},
    },
}
# Settings, arguments of the Trainer, and what DeepSpeed is told.
CASES = {
    "credit": (CREDIT, {}, {}),
    "credit, resumed at 2": (CREDIT, {}, {}),
    "credit, resumed at 3": (CREDIT, {}, {}),
    "credit, resumed at 4": (CREDIT, {}, {}),
    "gates in rounds": (RULES["gates"] | {"keep": 2, "select_steps": 4, "rounds": 2}, {}, {}),
    "gradient": ({"keep": 2, "selection": "gradient", "probe_batches": 2}, {}, {}),
    "chance, at once": ({"keep": 2, "select_steps": 0, "selection": "random"}, {}, {}),
    "credit, at the last step": ({"keep": 2, "select_steps": 6}, {}, {}),
    "clipping": (CREDIT, {"max_grad_norm": 0.03}, {}),
    "accumulation": (CREDIT, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}, {}),
    "DeepSpeed's optimizer": (CREDIT, {}, OWN),
    "DeepSpeed's optimizer, resumed at 3": (CREDIT, {}, OWN),
    "bf16": (CREDIT, {"bf16": True}, {"bf16": {"enabled": True}}),
    "bf16, resumed at 3": (CREDIT, {"bf16": True}, {"bf16": {"enabled": True}}),
    "offloaded to the CPU": (CREDIT, {}, {"zero_force_ds_cpu_optimizer": False}),  # which would be compiled
    "expand": (CREDIT | {"expand": "qr"}, {}, {}),
}
COARSE = {"bf16": 1e-2, "bf16, resumed at 3": 1e-2}  # alone, autocast computes in bf16, and not the whole model


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed: `make nightly-deepspeed` installs it, and runs this",
)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_in_two_phases_chooses_and_trains_as_one_process_does(tmp_path, stage):
    from peft import PeftModel

    told = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True, "stage3_param_persistence_threshold": 0}
    cases = {name: [*case[:2], case[2] | {"zero_optimization": told}] for name, case in CASES.items()}
    cases["offloaded to the CPU"][2]["zero_optimization"] = told | {"offload_optimizer": {"device": "cpu"}}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    for processes, name in ((1, "alone"), (2, "together")):
        (tmp_path / name).mkdir()
        launch("zero", processes, str(tmp_path / "cases.json"), str(tmp_path / name))
    alone, (first, second) = outcomes(tmp_path / "alone", 1)[0], outcomes(tmp_path / "together", 2)
    assert "expand cannot grow what FSDP or DeepSpeed has sharded" in first.pop("expand")["refused"]
    for case, found in first.items():
        one = alone[case]
        assert found["kept"] == second[case]["kept"] == one["kept"] and len(one["kept"]) == 2, case
        assert found["losses"] == second[case]["losses"]
        losses = torch.tensor(found["losses"])
        torch.testing.assert_close(losses, torch.tensor(one["losses"]), atol=COARSE.get(case, 1e-4), rtol=0, msg=case)
        scores = (torch.tensor(outcome[case]["scores"]) for outcome in (first, alone))
        torch.testing.assert_close(*scores, atol=1e-6, rtol=2e-2, msg=case)
        assert set(found["left"]) <= set(one["left"]), "nothing of DeepSpeed is left on the plain model"
        assert found["trainable"] == one["trainable"]
        if "DeepSpeed" not in case:  # its schedule has moved on when Trainer logs the learning rate
            assert found["logged"] == one["logged"], "step, learning rate, adapters, their parameters"
        interrupted = first[case.partition(", resumed")[0]]
        assert found["losses"] == interrupted["losses"], "bit for bit"
    outputs = []
    for name in ("alone", "together"):
        plain = PeftModel.from_pretrained(tiny_bert(layers=1), tmp_path / name / "credit" / "final").eval()
        assert {adapter.name for adapter in find_adapters(plain, check=False)} == set(alone["credit"]["kept"])
        outputs.append(plain(**batch(0)).logits)
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)


@pytest.fixture
def served(monkeypatch):
    """A selection on a model that the stand-in trains."""
    install(monkeypatch)

    def serve(config, model=None, **settings):
        model = model or lora_bert(layers=1)
        engine, told = DeepSpeed(), DeepSpeedEngine(model, **settings)
        engine.take_over_(told)
        return told, engine, WeightLora(model, told.optimizer, config, engine=engine)

    return serve


@pytest.mark.parametrize("settings", [{}, {"selection": "stoiht", "omega_lr": 1.0}, {"selection": "random"}])
@pytest.mark.parametrize("clipping", [0.0, 0.03])
def test_a_selection_reads_what_the_engine_keeps_to_itself(served, settings, clipping):
    config = WeightLoraConfig(keep=2, select_steps=4, **settings)
    model = lora_bert(layers=1)
    optimizer = adamw(model)
    plain = WeightLora(model, optimizer, config)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 8)
    told, engine, selector = served(config, clipping=clipping)
    for step in range(4):
        model(**batch(step)).loss.backward()
        if clipping:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clipping)
        optimizer.step()
        plain.step()
        optimizer.zero_grad()
        schedule.step()
        for part, last in ((0, False), (1, True)):  # two batches a step
            told.set_gradient_accumulation_boundary(last)
            half = {key: value[part::2] for key, value in batch(step).items()}
            told.backward(told.module(**half).loss / 2)
            told.step()
        assert told.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
        selector.step()
    assert selector.kept == plain.kept and len(plain.kept) == 2
    scores = (torch.tensor(list(one.scores.values())) for one in (selector, plain))
    torch.testing.assert_close(*scores, atol=1e-9, rtol=1e-3)
    assert [adapter.name for adapter in engine.waiting] == [name for name in plain.names if name not in plain.kept]
    assert all(local(p) is p and gradient_of(p) is None for p in selector.model.parameters()), "nothing is shown"


def test_a_probe_adds_up_gradients_that_the_engine_does_not_hear_of(served):
    config = WeightLoraConfig(keep=2, selection="gradient", probe_batches=2)
    model = lora_bert(layers=1)
    plain = WeightLora(model, adamw(model), config)
    told, _, selector = served(config)
    for one in (plain, selector):
        one.probe(map(batch, range(2)))
    assert selector.kept == plain.kept
    torch.testing.assert_close(*(torch.tensor(list(one.scores.values())) for one in (selector, plain)))
    assert not told.gradients and all(parameter.grad is None for parameter in selector.model.parameters())


def test_nan_stops_a_run_before_the_step_while_it_selects_and_after_the_step_later(served):
    told, _, selector = served(WeightLoraConfig(keep=2, select_steps=1))
    before = [parameter.detach().clone() for parameter in told.trained]
    told.backward(told.module(**batch(0)).loss)
    told.gradients[selector.adapters[0].factors[1]].fill_(float("nan"))
    with pytest.raises(TrainingError, match="NaN or infinite"):
        told.step()
    assert all(torch.equal(old, new) for old, new in zip(before, told.trained, strict=True))
    told.gradients.clear()
    told.backward(told.module(**batch(0)).loss)
    told.step()
    selector.step()
    assert selector.phase == "train"
    told.backward(told.module(**batch(1)).loss)
    told.gradients[told.trained[-1]].fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"DeepSpeed's gradient norm is -1\.0 in this step"):
        told.step()


def test_the_plain_model_has_new_parameters_and_no_hooks_of_deepspeed(served):
    told, engine, _ = served(WeightLoraConfig(keep=2, select_steps=0, selection="random"))

    def hook(*_):
        """As those that DeepSpeed leaves."""

    def other(*_):
        """Of somebody else."""

    hook.__module__ = "deepspeed.runtime.engine"
    for one in (hook, other):
        told.module.register_forward_hook(one)
    before = dict(told.module.named_parameters())
    plain = engine.to_plain_(told.module)
    assert plain is told.module and told.destroyed and list(plain._forward_hooks.values()) == [other]
    for name, parameter in plain.named_parameters():
        assert (parameter is not before[name]) == parameter.requires_grad == before[name].requires_grad
        assert torch.equal(parameter, before[name]) and not (parameter.requires_grad and vars(parameter))


def test_what_deepspeeds_functions_do_not_reach_is_refused_by_name(served):
    half = DeepSpeedEngine(lora_bert())
    half.fp16 = True
    with pytest.raises(ModelError, match="fp16 scales the loss and skips steps"):
        refuse_engine(half)
    quantized = lora_bert()
    quantized.quantized = type("Params4bit", (nn.Parameter,), {})(torch.zeros(2))
    with pytest.raises(ModelError, match="ZeRO 3 cuts up quantized base weights"):
        refuse_engine(DeepSpeedEngine(quantized, stage=3))
    refuse_engine(DeepSpeedEngine(quantized, stage=2))
    with pytest.raises(ModelError, match="needs the whole base weights, and ZeRO 3"):
        served(WeightLoraConfig(keep=2, select_steps=2), lora_bert(use_dora=True), stage=3)


def test_the_engine_takes_over_what_the_accelerator_prepares_and_reads_and_writes_checkpoints_by_itself(tmp_path):
    engine, built = DeepSpeed(), []

    def prepare(*objects):
        built.append(DeepSpeedEngine(lora_bert()))
        accelerator.deepspeed_engine_wrapped = SimpleNamespace(engine=built[-1])
        return objects

    accelerator = SimpleNamespace(prepare=prepare, deepspeed_engine_wrapped=None)
    with engine.serving(accelerator):
        assert accelerator.prepare(1, 2) == (1, 2) and engine.engine is built[0]
        accelerator.prepare()
        assert engine.engine is built[1]
    assert "prepare" not in vars(accelerator) or accelerator.prepare is not prepare
    assert engine.engine.save_checkpoint(tmp_path) == "saved" and engine.engine.load_checkpoint(tmp_path) == "loaded"


def test_the_stand_in_runs_hooks_follows_the_learning_rate_and_moves_nothing():
    parameter, ran = nn.Parameter(torch.ones(2)), []
    one = StandIn([parameter], {"lr": 0.5, "initial_lr": 1.0, "betas": (0.9, 0.99)})
    one.register_step_pre_hook(lambda *_: ran.append(one.param_groups[0]["lr"]))
    one.step()
    one.follow_({"lr": 0.25})
    one.step()
    assert ran == [0.5, 0.25] and one.param_groups[0]["initial_lr"] == 1.0
    assert torch.equal(parameter, torch.ones(2))
