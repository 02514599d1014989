"""Check the regular expressions of a recipe before PEFT matches them against every module of the model.

Python's `re` can take years for an expression such as `(a+)+b`, without a word. So the expressions are tried in a
process of their own, which ends after a few seconds.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..wording import nearest, shown

LIMIT = 5.0
"""Seconds for all expressions on all names of a model. An expression without nested repetition takes milliseconds."""

ALL = "all-linear"
"""PEFT's name for all linear modules, which is no expression."""

FORMS = {
    "target_modules": "(?:{})$",
    "listed": "(?:{})$",
    "exclude_modules": "(?:{})$",
    "layers_pattern": r"(?:^|.*?\.){}\.(?P<idx>\d+)\.",
    "rank_pattern": r"(.*\.)?({})$",
    "alpha_pattern": r"(.*\.)?({})$",
}
"""Setting -> the form in which PEFT matches its expressions."""

REPEATS = set("*+{?")
MATCH = """
import json, re, sys
expressions, names = json.load(sys.stdin)
for expression in expressions:
    print("tried", flush=True)
    compiled = re.compile(expression)
    for name in names:
        compiled.match(name)
"""


def patterns_in(target_modules: Any, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings with regular expressions that PEFT matches against the names of modules, and each expression."""
    own = target_modules if isinstance(target_modules, str) else None
    values = {**options, "target_modules": own, "listed": None}  # which is matched against the target modules alone
    found = []
    for setting in FORMS:
        value = values.get(setting)
        several = [value] if isinstance(value, str) else value
        if isinstance(several, list | dict) and (several is not value or setting != "exclude_modules"):
            found += [(setting, pattern) for pattern in several if isinstance(pattern, str)]
    return found


def check_names(
    targets: Sequence[str], names: Sequence[str], argument: str = "target_modules", of: str = "module of the model"
) -> None:
    """Raise a `ConfigError` if a target, an end of a module's name, fits no module. PEFT would leave it out silently.

    Args:
        targets: The `target_modules`, as a list.
        names: The names of the modules.
        argument: Where the targets were given.
        of: What the modules are, in a message.
    """
    for target in targets:
        if not fits(target, names):
            hint = _nearest_end(target, names) or ": give the end of a module's name"
            raise ConfigError(f"{argument} has {shown(target)}, which no {of} is named{hint}.")


def fits(target: str, names: Iterable[str]) -> bool:
    """Whether a module has this name, or a name that ends in it after a dot."""
    return any(f".{name}".endswith(f".{target}") for name in names)


def expression_in(targets: Sequence[str], names: Iterable[str]) -> str | None:
    """The regular expression that a list of targets stands for; None if it has names, or ends of names."""
    if len(targets) != 1 or targets[0].isidentifier() or fits(targets[0], names):
        return None
    return targets[0]


def _nearest_end(target: str, names: Iterable[str]) -> str:
    """The hint at an end of a module's name, with as many dots as the target."""
    return nearest(target, {".".join(name.split(".")[-1 - target.count(".") :]) for name in names})


def check_patterns(patterns: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
    """Raise a `ConfigError` if an expression is not valid, takes too long on one of the names, or targets no module.

    Args:
        patterns: Pairs of the setting and its expression.
        names: The names of the model's modules.
    """
    for setting, pattern in patterns:
        try:
            re.compile(FORMS[setting].format(pattern))
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"{setting}={shown(pattern)} is not a regular expression: {error}.") from error
    if tried := [(setting, pattern) for setting, pattern in patterns if REPEATS & set(pattern)]:
        _check_time(tried, names)
    for setting, pattern in patterns:
        form = FORMS[setting].format(pattern)
        chooses = setting == "listed" or (setting == "target_modules" and pattern != ALL)
        if chooses and not any(re.match(form, name) for name in names):
            hint = _nearest_end(pattern, names) or ": give the end of a module's name, or another expression"
            raise ConfigError(
                f"{setting} has {shown(pattern)}, which is neither the end of a module's name nor a regular "
                f"expression for a whole name{hint}."
            )


def _check_time(tried: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
    asked = json.dumps([[FORMS[setting].format(pattern) for setting, pattern in tried], list(names)])
    command = [sys.executable, "-I", "-S", "-c", MATCH]
    try:
        subprocess.run(command, input=asked.encode(), capture_output=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        setting, pattern = tried[(error.stdout or b"tried").count(b"tried") - 1]
        raise ConfigError(
            f"{setting}={shown(pattern)} takes more than {LIMIT:g} seconds on the names of the model's modules: write "
            "it without a repetition inside a repetition, or give a list of names."
        ) from error
