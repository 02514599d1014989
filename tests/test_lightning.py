"""The module's old name still works, says where it went, and leaves in the version that it names."""

import importlib

import pytest
from packaging.version import Version

import weightlora

pytest.importorskip("lightning.pytorch", reason="the extra `lightning` is not installed")


def test_the_old_name_warns_and_is_the_same_class():
    with pytest.warns(
        DeprecationWarning,
        match=r"^weightlora.lightning is deprecated and leaves in version 0\.3: write `from weightlora import",
    ):
        old = importlib.reload(importlib.import_module("weightlora.lightning"))
    from weightlora import WeightLoraLightningCallback

    assert old.WeightLoraLightningCallback is WeightLoraLightningCallback


def test_it_leaves_in_the_version_that_was_announced():
    assert Version(weightlora.__version__) < Version("0.3"), "delete weightlora/lightning.py and this file"
