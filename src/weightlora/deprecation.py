"""Names that are on their way out: they work and warn until the version that removes them."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["DEPRECATED", "Deprecation", "announce", "deprecated"]

Thing = TypeVar("Thing", bound=Callable[..., Any])


@dataclass(frozen=True)
class Deprecation:
    """What is deprecated.

    Attributes:
        name: As users write it.
        instead: What to write now.
        removed_in: The version that no longer has it.
    """

    name: str
    instead: str
    removed_in: str

    def __str__(self) -> str:
        return f"{self.name} is deprecated and leaves in version {self.removed_in}: write {self.instead}."


DEPRECATED: dict[str, Deprecation] = {}
"""Everything that is deprecated, by name, once its module is imported."""


def announce(name: str, instead: str, removed_in: str, stacklevel: int = 2) -> Deprecation:
    """Note that a module is deprecated, and warn whoever imports it. See `deprecated` for functions and classes."""
    entry = DEPRECATED[name] = Deprecation(name, instead, removed_in)
    warnings.warn(str(entry), DeprecationWarning, stacklevel=stacklevel + 1)
    return entry


def deprecated(instead: str, removed_in: str) -> Callable[[Thing], Thing]:
    """A decorator for a function or a class that works until a version removes it, and warns where it is called.

    Args:
        instead: What to write now.
        removed_in: The version that no longer has it: two minor versions after the one that deprecates it.

    Example:
        ```python
        @deprecated(instead="new_name()", removed_in="0.3")
        def old_name() -> int:
            return new_name()
        ```
    """

    def decorate(thing: Thing) -> Thing:
        name = f"{thing.__module__}.{thing.__qualname__}"
        entry = DEPRECATED[name] = Deprecation(name, instead, removed_in)
        made: Any = thing
        target = made.__init__ if isinstance(thing, type) else made

        @functools.wraps(target)
        def warn(*args: Any, **kwargs: Any) -> Any:
            warnings.warn(str(entry), DeprecationWarning, stacklevel=2)
            return target(*args, **kwargs)

        if isinstance(thing, type):
            made.__init__ = warn
            return thing
        return warn  # type: ignore[return-value]

    return decorate
