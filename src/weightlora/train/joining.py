"""Put the rows of several files together, whose types need not be the same."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Json, concatenate_datasets

from ..errors import DataError
from ..wording import shown


def joined(parts: list[Dataset], paths: list[Path], split: str) -> Dataset:
    """The rows of all files in order. A column that a file lacks is empty there.

    Numbers become floats where some are. A column whose values have no common type is kept as JSON, so each value is
    what it is in its file.

    Args:
        parts: The rows of each file.
        paths: Their paths.
        split: What they are of.

    Raises:
        DataError: Two files have other classes in a column.
    """
    kinds = [part.features for part in parts]
    if all(kind == kinds[0] for kind in kinds):
        return concatenate_datasets(parts)
    order = list(dict.fromkeys(name for kind in kinds for name in kind))
    for name in order:
        there = [kind[name] for kind in kinds if name in kind]
        if name in kinds[0] and all(one == there[0] for one in there) and len(there) == len(parts):
            continue
        common = _common(name, there, paths, split)
        try:
            parts = [_with(part, name, common) for part in parts]
        except (pa.ArrowException, TypeError, ValueError):  # such as an integer that no float is equal to
            parts = [_with(part, name, Json()) for part in parts]
    return concatenate_datasets([part.select_columns(order) for part in parts])


def _common(name: str, features: list[Any], paths: list[Path], split: str) -> Any:
    """The feature that a column has in all files."""
    classes = [found for feature in features for found in _classes_in(feature)]
    if len({tuple(found) for found in classes}) > 1:
        raise DataError(
            f"{len(paths)} files for {split}, {paths[0].name} and on, cannot be read together: the classes of "
            f"{shown(name)} differ ({classes[0]}, {next(one for one in classes if one != classes[0])}); give them the "
            "same names in the same order."
        )
    if classes:
        return next(feature for feature in features if _classes_in(feature))
    schemas = [Features({name: feature}).arrow_schema.remove_metadata() for feature in features]
    try:
        return Features.from_arrow_schema(pa.unify_schemas(schemas, promote_options="permissive"))[name]
    except pa.ArrowException:
        return Json()


def _classes_in(feature: Any) -> list[list[str]]:
    """The names of the classes in a feature, also inside lists and structs."""
    if isinstance(feature, ClassLabel):
        return [list(feature.names)]
    inner = list(feature.values()) if isinstance(feature, dict) else [getattr(feature, "feature", None)]
    return [found for one in inner if one is not None for found in _classes_in(one)]


def _with(part: Dataset, name: str, feature: Any) -> Dataset:
    """The rows with this feature for a column."""
    there = name in part.column_names
    if there and not isinstance(feature, Json):
        return part if part.features[name] == feature else part.cast_column(name, feature)
    values = part[name][:] if there else [None] * len(part)
    if isinstance(feature, Json):  # a text is taken as it is if it is JSON, so `7` would become a number
        values = [None if value is None else json.dumps(value, default=str) for value in values]
    column = Dataset.from_dict({name: values}, features=Features({name: feature}))
    others = [other for other in part.column_names if other != name]
    return concatenate_datasets([part.select_columns(others), column], axis=1) if others else column
