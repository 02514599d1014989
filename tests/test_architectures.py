"""Every architecture: selection, a real disconnect, growth, and a checkpoint that plain PEFT loads to the same.

The real SmolLM2 is in `benchmarks/workloads/test_smollm2.py`, where it is loaded anyway.
"""

import pytest
from architectures import ARCHITECTURES, REAL, SETTINGS, select_disconnect_and_load


@pytest.mark.parametrize("rule", SETTINGS)
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != REAL])
def test_an_architecture_selects_disconnects_and_loads_without_us(name, rule, tmp_path):
    pytest.importorskip(ARCHITECTURES[name].needs)
    select_disconnect_and_load(ARCHITECTURES[name], rule, tmp_path)
