"""Checkpoints of several processes. What becomes of damaged ones: tests/test_faults.py."""

import pytest
from processes import launch, outcomes

from weightlora.manifest import check_manifest


@pytest.mark.slow
def test_the_manifest_lists_the_files_of_all_processes_and_all_resume_from_one_checkpoint(tmp_path):
    launch("checkpoints", 2, str(tmp_path))
    for kind in ("mixin", "plain"):
        for step in (1, 2, 3):
            manifest = check_manifest(tmp_path / kind / f"checkpoint-{step}")
            assert manifest.step == step and manifest.files.keys() > {"rng_state_0.pth", "rng_state_1.pth"}
    for found in outcomes(tmp_path, 2):
        assert found["mixin"] == found["plain"] == 3
        assert "would resume from different checkpoints (checkpoint-1, checkpoint-" in found["apart"]
