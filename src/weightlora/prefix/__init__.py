"""Keeps what the frozen blocks below the lowest trained one compute, so that later epochs do not run them."""

from .cache import PrefixCache

__all__ = ["PrefixCache"]
