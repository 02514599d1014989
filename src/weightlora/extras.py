"""The packages that only a part of this one needs, and what installs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from .errors import MissingPackageError

INSTALLED_BY = {
    **dict.fromkeys(("datasets", "pyarrow", "rich", "scipy", "sklearn"), "weightlora[train]"),
    **dict.fromkeys(("jinja2", "markupsafe", "matplotlib"), "weightlora[report]"),
    "bitsandbytes": "bitsandbytes",
    "gguf": "weightlora[export]",
    "lightning": "weightlora[lightning]",
    "rouge_score": "weightlora[recipes]",
    "shtab": "weightlora[demo]",
    "trl": "trl",
}
"""Module -> what `pip install` takes. With an extra of a package that is installed, pip adds what the extra names."""


def missing_package(error: ModuleNotFoundError, requirement: str | None = None) -> MissingPackageError | None:
    """The sentence for a failed import; None if the module is not one of `INSTALLED_BY`.

    Args:
        error: Of the import.
        requirement: What to install, if not what `INSTALLED_BY` says.
    """
    module = str(error.name).split(".")[0]
    if module not in INSTALLED_BY:
        return None
    requirement = requirement or INSTALLED_BY[module]
    return MissingPackageError(f"{module} is not installed: run pip install '{requirement}'.", name=module)


@contextmanager
def explain_missing(requirement: str | None = None) -> Iterator[None]:
    """Raise a `MissingPackageError` for an import inside that fails because a package of an extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if isinstance(error, MissingPackageError) or (missing := missing_package(error, requirement)) is None:
            raise
        raise missing from error


def require(*modules: str, requirement: str | None = None) -> None:
    """Import modules before long work begins that will need them.

    Raises:
        MissingPackageError: If a package is missing. The message says what to install: `requirement`, or what
            `INSTALLED_BY` says.
    """
    with explain_missing(requirement):
        for module in modules:
            import_module(module)
