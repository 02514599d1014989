"""mlx-lm loads the export with `load_adapters`, and computes what PEFT does."""

import numpy as np
import pytest
import torch
from exports import CASES, EXPERTS_AND_HEADS, logits, saved

from weightlora.export import export_adapter

mx = pytest.importorskip("mlx.core", reason="mlx is not installed: run `make consumers`")
utils = pytest.importorskip("mlx_lm.utils", reason="mlx-lm is not installed: run `make consumers`")
NAMES = [name for name in CASES if name not in EXPERTS_AND_HEADS]


@pytest.mark.parametrize("name", NAMES)
def test_mlx_lm_computes_what_peft_does(name, tmp_path):
    from mlx_lm.tuner.utils import load_adapters

    export_adapter(saved(name), tmp_path / "out", "mlx")
    model, _ = utils.load_model(saved(name).parent / "base")
    ids = mx.array(np.arange(3, 15)[None])
    before = torch.from_numpy(np.array(model(ids)))
    torch.testing.assert_close(before, logits(None, CASES[name].base()), rtol=0, atol=1e-6)
    after = torch.from_numpy(np.array(load_adapters(model, str(tmp_path / "out"))(ids)))
    torch.testing.assert_close(after, logits(saved(name), CASES[name].base()), rtol=0, atol=2e-6)
    assert float((after - before).abs().max()) > 0.01
