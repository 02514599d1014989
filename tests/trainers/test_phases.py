"""Which runs need two phases, and which of them are refused. Whole runs: tests/engines."""

from types import SimpleNamespace

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from weightlora.engines import DeepSpeed, Fsdp1
from weightlora.errors import ConfigError
from weightlora.trainers.phases import checkpoint_dir, phased_engine

ARGUMENTS = {"save_only_model": False, "load_best_model_at_end": False, "ignore_data_skip": False}


def trainer(version: int | None = 1, state_dict_type: str = "StateDictType.FULL_STATE_DICT", **arguments):
    plugin = None if version is None else SimpleNamespace(fsdp_version=version, state_dict_type=state_dict_type)
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    return SimpleNamespace(accelerator=accelerator, args=SimpleNamespace(**ARGUMENTS | arguments), model_init=None)


def zero(stage: int, config: dict | None = None, **arguments):
    told = {"zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True}} | (config or {})
    plugin = SimpleNamespace(zero_stage=stage, hf_ds_config=HfDeepSpeedConfig(told))
    accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))
    return SimpleNamespace(accelerator=accelerator, args=SimpleNamespace(**ARGUMENTS | arguments), model_init=None)


@pytest.mark.parametrize(("version", "kind"), [(None, type(None)), (1, Fsdp1), (2, type(None))])
def test_only_fsdp_of_version_1_needs_phases(version, kind):
    assert type(phased_engine(trainer(version))) is kind


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_needs_phases_at_every_stage_of_zero(stage):
    assert type(phased_engine(zero(stage))) is DeepSpeed


@pytest.mark.parametrize("setting", ARGUMENTS)
def test_a_trainer_whose_checkpoints_cannot_carry_a_run_over_is_refused(setting):
    for build, name in ((trainer, r"FSDP \(version 1\)"), (zero, "DeepSpeed")):
        with pytest.raises(ConfigError, match=rf"^{setting}=True does not go with {name}, .*: set it to False\.$"):
            phased_engine(build(1, **{setting: True}))
    assert phased_engine(trainer(2, **{setting: True})) is None


def test_a_trainer_that_would_build_all_adapters_again_for_the_second_phase_is_refused():
    for one, name in ((trainer(1), r"FSDP \(version 1\)"), (zero(2), "DeepSpeed"), (trainer(2), None)):
        one.model_init = object
        if name is None:
            assert phased_engine(one) is None
            continue
        with pytest.raises(ConfigError, match=rf"^model_init does not go with {name}: .* so pass the model itself\.$"):
            phased_engine(one)


def test_a_layout_of_checkpoints_without_an_adapter_is_refused():
    with pytest.raises(ConfigError, match=r"SHARDED_STATE_DICT of FSDP .* saves no adapter: set 'FULL_STATE_DICT'"):
        phased_engine(trainer(state_dict_type="SHARDED_STATE_DICT"))
    with pytest.raises(ConfigError, match=r"saves no adapter without .*gather_16bit_weights_on_model_save: set"):
        phased_engine(zero(3, {"zero_optimization": {"stage": 3}}))


def test_deepspeed_where_its_functions_do_not_reach_is_refused_by_name():
    with pytest.raises(ConfigError, match="safe_get_full_fp32_param of DeepSpeed gives nothing under ZeRO stage 0"):
        phased_engine(zero(0))
    with pytest.raises(ConfigError, match="fp16 of DeepSpeed scales the loss and skips steps"):
        phased_engine(zero(2, {"fp16": {"enabled": True}}))
    for device in ("cpu", "nvme"):
        told = zero(2, {"zero_optimization": {"offload_optimizer": {"device": device}}})
        if device == "cpu":
            assert type(phased_engine(told)) is DeepSpeed
            continue
        with pytest.raises(ConfigError, match="offload_optimizer to nvme was not tested with a selection: set its"):
            phased_engine(told)


def test_the_checkpoint_of_the_present_step_is_where_trainer_writes_it(tmp_path):
    place = checkpoint_dir(str(tmp_path), SimpleNamespace(global_step=7))
    assert place == tmp_path / "checkpoint-7"
