"""Checks of single settings, and amounts of memory as people write them."""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from numbers import Integral, Real
from typing import Any, TypeGuard

from .errors import ConfigError
from .wording import nearest, shown

UNITS = {"B": 1, **{f"{p}B": 1000 ** (i + 1) for i, p in enumerate("KMGT")}}
UNITS |= {f"{p}iB": 1024 ** (i + 1) for i, p in enumerate("KMGT")}


def plain(value: Any) -> Any:
    """A number of numpy as one of Python, and anything else as it is."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, Real) and not isinstance(value, Integral) else value


def parse_number(keep: str, name: str = "keep", of: str = "adapters (9)") -> int | float:
    """K as a number of adapters, or as a fraction; or another budget that is either. `1e3` is a whole number."""
    with suppress(ValueError):
        return int(keep)
    with suppress(ValueError):
        number = float(keep)
        if math.isfinite(number):
            return int(number) if "." not in keep and number.is_integer() else number
    raise ConfigError(f"{name}={keep!r} is not a number: give a number of {of} or a fraction (0.25).")


def is_int(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number. For Python, `True` is one, too."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number, finite or not, and no truth value."""
    return is_int(value) or isinstance(value, float)


def is_finite(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number, and neither NaN nor infinite."""
    return is_number(value) and math.isfinite(value)


def is_numeral(text: str) -> bool:
    """Whether a text is a number, as `float` reads it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_known(name: str, value: object, known: Iterable[str]) -> None:
    """Raise a `ConfigError` unless a setting is one of the known values; the message has the nearest one."""
    if value not in (names := list(known)):
        hint = nearest(str(value).lower(), names) or f": choose one of {', '.join(map(repr, names))}"
        raise ConfigError(f"{name}={value!r} is not known{hint}.")


def check_int(name: str, value: object, smallest: int, or_fraction: bool = False) -> None:
    """Raise a `ConfigError` unless a setting is a whole number of at least `smallest`. It may allow fractions, too."""
    if not is_int(value) or value < smallest:
        also = ", or a fraction in (0, 1)" if or_fraction else ""
        raise ConfigError(f"{name}={value!r} must be a whole number of at least {smallest}{also}.")


def check_fraction(name: str, value: float, of: str) -> None:
    """Raise a `ConfigError` unless a setting is in (0, 1)."""
    if not 0 < value < 1:
        whole = f"{value:.0f}" if value >= 1 and float(value).is_integer() else "a whole number"
        raise ConfigError(f"{name}={value} is not a fraction in (0, 1): for a number of {of} write {whole}.")


def check_share(name: str, value: object, of: str) -> None:
    """Raise a `ConfigError` unless a setting that has no other form is in (0, 1)."""
    if not (isinstance(value, float) and 0 < value < 1):
        raise ConfigError(f"{name}={value!r} must be a fraction in (0, 1) of {of}, for example 0.6.")


def check_keep(keep: object) -> None:
    """Raise a `ConfigError` unless this is a number of adapters, or a fraction of them."""
    if isinstance(keep, float):
        check_fraction("keep", keep, "adapters")
    elif not is_int(keep) or keep < 1:
        raise ConfigError(
            f"keep={shown(keep)} must be a number of adapters of at least 1, or a fraction in (0, 1), "
            "as in keep=8 or keep=0.25."
        )


def check_scale(grad_scale: Any) -> float:
    """The factor that gradients carry: that of an AMP scaler, or 1 for None.

    Raises:
        ConfigError: It is not a positive, finite number.
    """
    try:
        scale = 1.0 if grad_scale is None else float(grad_scale)
    except (TypeError, ValueError):
        scale = math.nan
    if not 0 < scale < math.inf:
        raise ConfigError(f"grad_scale={shown(grad_scale)} is not a positive number: pass scaler.get_scale().")
    return scale


def to_bytes(name: str, value: object) -> int:
    """An amount of memory: a number of bytes, or a text such as `"6GiB"`, `"512 MiB"` or `"1.5GB"`.

    Raises:
        ConfigError: It is neither, or not positive.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else None
    amount = float(found[1]) * UNITS.get(found[2], 0) if found else value
    if not is_number(amount) or not 1 <= amount < math.inf:
        raise ConfigError(
            f"{name}={shown(value)} is not an amount of memory: give bytes, or a number with one of the units "
            f"{', '.join(UNITS)}, for example '6GiB'."
        )
    return int(amount)
