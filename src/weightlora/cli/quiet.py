"""Keep libraries quiet while a command runs."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def silence_bitsandbytes() -> None:
    """Keep bitsandbytes from logging, at its import, which CPU kernels it could not load, and kernels from why."""
    for name in ("bitsandbytes", "kernels"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide reports, progress bars and deprecation warnings of Transformers and Datasets. Then restore what was.

    Without Datasets, which `weightlora export` does not need, Transformers alone becomes quiet.
    """
    from transformers import logging as transformers_logging

    with contextlib.ExitStack() as afterwards:
        afterwards.callback(transformers_logging.set_verbosity, transformers_logging.get_verbosity())
        if transformers_logging.is_progress_bar_enabled():
            afterwards.callback(transformers_logging.enable_progress_bar)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        if find_spec("datasets"):
            datasets: Any = import_module("datasets")
            afterwards.callback(datasets.logging.set_verbosity, datasets.logging.get_verbosity())
            if not datasets.are_progress_bars_disabled():
                afterwards.callback(datasets.enable_progress_bars)
            # It logs that a file cannot be read, and raises the error that says so.
            datasets.logging.set_verbosity(logging.CRITICAL)
            datasets.disable_progress_bars()
        afterwards.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", FutureWarning)
        yield
