"""Which runs need two phases, and which of them are refused. Whole runs: tests/engines/test_distributed.py."""

from types import SimpleNamespace

import pytest

from weightlora.errors import ConfigError
from weightlora.trainers.phases import checkpoint_dir, needs_phases

ARGUMENTS = {"save_only_model": False, "load_best_model_at_end": False, "ignore_data_skip": False}


def trainer(version: int | None = 1, state_dict_type: str = "StateDictType.FULL_STATE_DICT", **arguments):
    plugin = None if version is None else SimpleNamespace(fsdp_version=version, state_dict_type=state_dict_type)
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    return SimpleNamespace(accelerator=accelerator, args=SimpleNamespace(**ARGUMENTS | arguments))


@pytest.mark.parametrize(("version", "needed"), [(None, False), (1, True), (2, False)])
def test_only_fsdp_of_version_1_needs_phases(version, needed):
    assert needs_phases(trainer(version)) is needed


@pytest.mark.parametrize("setting", ARGUMENTS)
def test_a_trainer_whose_checkpoints_cannot_carry_a_run_over_is_refused(setting):
    with pytest.raises(ConfigError, match=rf"^{setting}=True does not go with FSDP .*: set it to False\.$"):
        needs_phases(trainer(**{setting: True}))
    assert not needs_phases(trainer(2, **{setting: True}))


def test_a_layout_of_checkpoints_without_an_adapter_is_refused():
    with pytest.raises(ConfigError, match=r"SHARDED_STATE_DICT of FSDP .* saves no adapter: set 'FULL_STATE_DICT'"):
        needs_phases(trainer(state_dict_type="SHARDED_STATE_DICT"))


def test_the_checkpoint_of_the_present_step_is_where_trainer_writes_it(tmp_path):
    place = checkpoint_dir(SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=7))
    assert place == tmp_path / "checkpoint-7"
