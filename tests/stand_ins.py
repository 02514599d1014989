"""Stand-ins for what a file of another package imports and does not need here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def stand_ins(*modules: str) -> Iterator[None]:
    """Modules of these names that have every attribute; afterwards `sys.modules` is what it was."""
    with mock.patch.dict(sys.modules):
        for name in modules:
            sys.modules[name] = mock.MagicMock(name=name)
        yield
