"""The module's old name still works, and says where it went."""

import importlib

import pytest

pytest.importorskip("lightning.pytorch", reason="the extra `lightning` is not installed")


def test_the_old_name_warns_and_is_the_same_class():
    with pytest.warns(
        DeprecationWarning,
        match=r"^weightlora.lightning is deprecated and leaves in version 0\.3: write `from weightlora import",
    ):
        old = importlib.reload(importlib.import_module("weightlora.lightning"))
    from weightlora import WeightLoraLightningCallback

    assert old.WeightLoraLightningCallback is WeightLoraLightningCallback
