"""Moved: what reads and writes the state is in `weightlora.state`."""

import warnings

from .state import read_state, restore, write_state

__all__ = ["read_state", "restore", "write_state"]

warnings.warn("weightlora.checkpoint has moved: import from weightlora.state.", DeprecationWarning, stacklevel=2)
