"""Put the rows of several files together, whose types need not be the same."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Json, Value, concatenate_datasets

from ..errors import DataError
from ..wording import first_line, shown
from .verbatim import as_written


def joined(parts: list[Dataset], paths: list[Path], split: str) -> Dataset:
    """The rows of all files in order. A column that a file lacks is empty there.

    Numbers become floats where some are. A column whose values have no common type is kept as JSON, so each value is
    what it is in its file.

    Args:
        parts: The rows of each file.
        paths: Their paths.
        split: What they are of.

    Raises:
        DataError: Two files have other classes in a column, or one has something else than the classes of another.
    """
    kinds = [part.features for part in parts]
    if all(kind == kinds[0] for kind in kinds):
        return concatenate_datasets(parts)
    order = list(dict.fromkeys(name for kind in kinds for name in kind))
    for name in order:
        if any(kind.get(name) != kinds[0].get(name) for kind in kinds):
            parts = _alike(parts, name, f"{len(paths)} files for {split}, {paths[0].name} and on,")
    return concatenate_datasets([part.select_columns(order) for part in parts])


def _alike(parts: list[Dataset], name: str, files: str) -> list[Dataset]:
    """The parts with a column of one feature; `files` is how an error names them."""
    features = [part.features[name] for part in parts if name in part.column_names]
    classes = _common_classes(features, name, files)
    try:
        common = next((feature for feature in features if _classes_in(feature)), None) or _common(features)
        return [_with(part, name, common) for part in parts]
    except (pa.ArrowException, TypeError, ValueError) as error:  # such as an integer that no float is equal to
        if classes:
            raise DataError(
                f"{files} cannot be read together: not all values of {shown(name)} are one of its classes, "
                f"{next(iter(classes.values()))} ({first_line(error)}); correct them, or name the class."
            ) from error
    return [_with(part, name, Json()) for part in parts]


def _common_classes(features: list[Any], name: str, files: str) -> dict[tuple[str, ...], list[str]]:
    """The names of the classes in a column, by their place in lists and objects."""
    known: dict[tuple[str, ...], list[str]] = {}
    for place, names in (item for feature in features for item in _classes_in(feature).items()):
        if known.setdefault(place, names) != names:
            raise DataError(
                f"{files} cannot be read together: the classes of {shown(name)} differ ({known[place]}, {names}); "
                "give them the same names in the same order."
            )
    leaves = [item for feature in features for item in _leaves(feature).items()]
    for place, leaf in leaves:
        if any(map(str.isdecimal, known.get(place, ()))) and isinstance(leaf, Value) and "int" in leaf.dtype:
            raise DataError(
                f"{files} cannot be read together: the classes of {shown(name)} have numbers as names "
                f"({known[place]}), and one file has numbers, which may be names or places; write them as texts."
            )
    return known


def _common(features: list[Any]) -> Any:
    """A feature that has room for the values of all."""
    schemas = [Features({"": feature}).arrow_schema.remove_metadata() for feature in features]
    return Features.from_arrow_schema(pa.unify_schemas(schemas, promote_options="permissive"))[""]


def _classes_in(feature: Any) -> dict[tuple[str, ...], list[str]]:
    return {place: list(leaf.names) for place, leaf in _leaves(feature).items() if isinstance(leaf, ClassLabel)}


def _leaves(feature: Any, place: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The features inside lists and objects, by their place."""
    if isinstance(feature, dict):
        return {at: leaf for name, part in feature.items() for at, leaf in _leaves(part, (*place, name)).items()}
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return {place: feature} if inner is None else _leaves(inner, (*place, ""))


def _with(part: Dataset, name: str, feature: Any) -> Dataset:
    """The rows with this feature for a column."""
    there = name in part.column_names
    if there and not isinstance(feature, Json):
        return part if part.features[name] == feature else part.cast_column(name, feature)
    values = part[name][:] if there else [None] * len(part)
    if there:  # a text is taken as it is if it is JSON, so `7` would become a number
        own = (as_written(value, part.features[name]) for value in values)
        values = [None if value is None else json.dumps(value, default=str) for value in own]
    column = Dataset.from_dict({name: values}, features=Features({name: feature}))
    others = [other for other in part.column_names if other != name]
    return concatenate_datasets([part.select_columns(others), column], axis=1) if others else column
