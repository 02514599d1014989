import logging
import warnings

import datasets
import pytest
from transformers.utils import logging as transformers_logging

from weightlora.cli.quiet import quiet_libraries, silence_bitsandbytes


def settings() -> tuple[int, int, bool, bool]:
    bars = transformers_logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    return transformers_logging.get_verbosity(), datasets.logging.get_verbosity(), *bars


def test_libraries_are_quiet_inside_and_as_before_afterwards():
    before = settings()
    with pytest.raises(ZeroDivisionError), quiet_libraries():
        assert settings() == (logging.ERROR, logging.CRITICAL, False, True)
        with warnings.catch_warnings(record=True) as seen:
            warnings.warn("old", FutureWarning, stacklevel=1)
            warnings.warn("look", UserWarning, stacklevel=1)
        assert [str(warning.message) for warning in seen] == ["look"]
        raise ZeroDivisionError
    assert settings() == before


def test_bars_that_were_off_stay_off():
    datasets.disable_progress_bars()
    try:
        with quiet_libraries():
            pass
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.enable_progress_bars()


@pytest.mark.parametrize("name", ["bitsandbytes", "kernels"])
def test_bitsandbytes_does_not_log(monkeypatch: pytest.MonkeyPatch, name: str):
    logger = logging.getLogger(name)
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    silence_bitsandbytes()
    assert not logger.isEnabledFor(logging.ERROR)
