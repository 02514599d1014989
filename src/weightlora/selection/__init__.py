"""The answer to "what do I put under `target_modules`?": a `Selection`, and its text for each tool."""

from .module import Module
from .record import Selection

__all__ = ["Module", "Selection"]
