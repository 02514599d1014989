"""Put the rows of several files together, whose types need not be the same."""

import json
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Json, Value, concatenate_datasets

from .verbatim import as_written


def joined(parts: list[Dataset]) -> Dataset:
    """The rows of all files in order. A column that a file lacks is empty there.

    Numbers become floats where some are, and numbers beside classes are places among them. A column whose values have
    no common type is kept as JSON: each value is what it is in its file, and a class its name.

    Args:
        parts: The rows of each file.
    """
    kinds = [part.features for part in parts]
    if all(kind == kinds[0] for kind in kinds):
        return concatenate_datasets(parts)
    order = list(dict.fromkeys(name for kind in kinds for name in kind))
    for name in order:
        if any(kind.get(name) != kinds[0].get(name) for kind in kinds):
            parts = _alike(parts, name)
    return concatenate_datasets([part.select_columns(order) for part in parts])


def _alike(parts: list[Dataset], name: str) -> list[Dataset]:
    """The parts with a column of one feature."""
    try:
        feature = _common([part.features[name] for part in parts if name in part.column_names])
        return [_with(part, name, feature) for part in parts]
    except (pa.ArrowException, TypeError, ValueError):  # such as an integer that no float is equal to
        return [_with(part, name, Json()) for part in parts]


def _common(features: list[Any]) -> Any:
    """A feature that has room for the values of all; a `ValueError` or Arrow's error if there is none."""
    if classes := [feature for feature in features if _names_in(feature)]:
        names = _names_in(classes[0])
        if any(_names_in(feature) != names for feature in classes):
            raise ValueError("the classes differ")
        numbers = any(isinstance(leaf, Value) and leaf.dtype.startswith(NUMERIC) for leaf in map(_leaf, features))
        if numbers and any(map(_is_number, names)) and names != [*map(str, range(len(names)))]:
            raise ValueError("the numbers may be names or places")
        return classes[0]
    schemas = [Features({"": feature}).arrow_schema.remove_metadata() for feature in features]
    return Features.from_arrow_schema(pa.unify_schemas(schemas, promote_options="permissive"))[""]


NUMERIC = ("int", "uint", "float")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _leaf(feature: Any) -> Any:
    """What a list, or a list of lists, consists of; any other feature as it is."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return feature if inner is None else _leaf(inner)


def _names_in(feature: Any) -> list[str]:
    """The names of the classes, of which each row has one or a list."""
    leaf = _leaf(feature)
    return list(leaf.names) if isinstance(leaf, ClassLabel) else []


def _with(part: Dataset, name: str, feature: Any) -> Dataset:
    """The rows with this feature for a column."""
    there = name in part.column_names
    if there and not isinstance(feature, Json):
        return part if part.features[name] == feature else part.cast_column(name, feature)
    values = part[name][:] if there else [None] * len(part)
    if there:  # a text is taken as it is if it is JSON, so `7` would become a number
        own = part.features[name]
        values = [_named(as_written(value, own), _names_in(own)) for value in values]
        values = [None if value is None else json.dumps(value, default=str) for value in values]
    column = Dataset.from_dict({name: values}, features=Features({name: feature}))
    others = [other for other in part.column_names if other != name]
    return concatenate_datasets([part.select_columns(others), column], axis=1) if others else column


def _named(value: Any, names: list[str]) -> Any:
    """A value with the names of its classes, of which -1 is none."""
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if names and value is not None and 0 <= value < len(names) else value
