"""What is deprecated works, warns whoever writes it, and leaves in the version that was announced."""

import contextlib
import importlib
import pkgutil
import warnings

import pytest
from packaging.version import Version

import weightlora
from weightlora.deprecation import DEPRECATED, Deprecation, deprecated


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr("weightlora.deprecation.DEPRECATED", found := {})
    return found


def test_a_function_works_and_warns_at_the_line_of_its_caller(registry):
    @deprecated(instead="new()", removed_in="9.0")
    def old(value: int, *, more: int = 1) -> int:
        """Adds."""
        return value + more

    with pytest.warns(
        DeprecationWarning, match=r"old is deprecated and leaves in version 9\.0: write new\(\)\.$"
    ) as seen:
        assert old(1, more=2) == 3
    assert seen[0].filename == __file__ and old.__doc__ == "Adds."
    assert [entry.removed_in for entry in registry.values()] == ["9.0"]


def test_a_class_stays_a_class(registry):
    @deprecated(instead="New", removed_in="9.0")
    class Old:
        def __init__(self, value: int) -> None:
            self.value = value

    with pytest.warns(DeprecationWarning, match="write New"):
        made = Old(3)
    assert isinstance(made, Old) and made.value == 3


@pytest.mark.slow
def test_what_was_to_leave_has_left():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for module in pkgutil.walk_packages(weightlora.__path__, "weightlora."):
            if not module.name.endswith("__main__"):
                with contextlib.suppress(ImportError):  # of an extra that is not installed
                    importlib.import_module(module.name)
    assert "weightlora.lightning" in DEPRECATED
    version = Version(weightlora.__version__)
    for entry in DEPRECATED.values():
        assert isinstance(entry, Deprecation) and Version(entry.removed_in) > version, f"{entry} Delete it."
