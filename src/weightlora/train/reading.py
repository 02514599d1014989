"""Read YAML that a stranger may have written: a mapping of plain values of limited size, or one sentence."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..wording import shown

LARGEST = 2**20
"""Bytes of a file of settings."""

MOST, DEEPEST = 10_000, 20
"""Values in a file of settings, and how deep they are nested. YAML's aliases repeat a value many times."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only, and no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", node.start_mark)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file. An empty file has an empty one.

    Args:
        path: The file.
        what: What it is called in errors.

    Raises:
        ConfigError: It cannot be read, is not YAML, has a key twice, is too large, or is not a mapping of names.
    """
    text = _text(path, what)
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{what} is not valid YAML: {' '.join(str(error).split())}.") from error
    return _checked({} if content is None else content, what)


def check_name(name: Any, what: str) -> str:
    """The name, if it can be a file's or a directory's and leads nowhere else.

    Raises:
        ConfigError: It is empty, too long, or has a character that a name in a path may not have.
    """
    if isinstance(name, str) and re.fullmatch(r"(?!\.)[^/\\\x00-\x1f\x7f]{1,200}", name):
        return name
    raise ConfigError(
        f"{what} {shown(name)} cannot be the name of a directory: use letters, digits, dashes and dots, and no dot at "
        "the beginning."
    )


def _text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{what} is larger than {LARGEST:,} bytes: it is not a file of settings.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} is not a text in UTF-8 ({error.reason}, byte {error.start}): save it as one."
        ) from error
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}.") from error


def _checked(content: Any, what: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigError(f"{what} is not a mapping: write one `name: value` per line.")
    left = [(value, 1) for value in [*content, *content.values()]]
    count = 0
    while left:
        value, depth = left.pop()
        count += 1
        if count > MOST or depth > DEEPEST:
            raise ConfigError(
                f"{what} has more than {MOST:,} values, or lists that are nested more than {DEEPEST} deep: it is no "
                "file of settings."
            )
        if isinstance(value, dict):
            left += [(inner, depth + 1) for inner in [*value, *value.values()]]
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]
        elif not isinstance(value, str | int | float | None):
            raise ConfigError(
                f"{what} has {shown(value)}, which is no text, number, list or mapping: put it in quotes."
            )
    return content
