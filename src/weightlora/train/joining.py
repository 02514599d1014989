"""Put the rows of several files together, whose types need not be the same."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Json, List, concatenate_datasets

from ..values import is_numeral
from .verbatim import as_written

TEXTS = {"string", "large_string"}
NUMBERS = ("int", "uint", "float")


def joined(parts: list[Dataset]) -> Dataset:
    """The rows of all files in order. A column that a file lacks is empty there.

    Numbers become floats where some are. Classes go by their names, beside texts and where files number them
    differently, and keep the order in which they come. A number beside classes is the place of one, unless it may be a
    name. A column whose values have no common type is kept as JSON: each value is what it is in its file, and a class
    is its name.

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
    features = [part.features[name] for part in parts if name in part.column_names]
    try:
        if any(map(names_in, features)):
            return _with_classes(parts, name, features)
        schemas = [Features({name: feature}).arrow_schema.remove_metadata() for feature in features]
        common = Features.from_arrow_schema(pa.unify_schemas(schemas, promote_options="permissive"))[name]
        return [_with(part, name, common) for part in parts]
    except (pa.ArrowException, TypeError, ValueError):  # such as an integer that no float is equal to
        return [_as_json(part, name) for part in parts]


def _with_classes(parts: list[Dataset], name: str, features: list[Any]) -> list[Dataset]:
    """The parts with a column of classes; a `ValueError` if its values are not all classes for sure."""
    first = next(filter(names_in, features))
    names = list(dict.fromkeys(one for feature in features for one in names_in(feature)))
    dtypes = {getattr(_leaf(feature), "dtype", "") for feature in features if not names_in(feature)} - {"null"}
    if dtypes <= TEXTS:
        texts = (text for part in parts if name in part.column_names for text in _texts(part[name]))
        names = list(dict.fromkeys([*names, *texts]))
        return [_by_name(part, name, names, _around(first, ClassLabel(names=names))) for part in parts]
    may_be_names = any(map(is_numeral, names)) and names != [*map(str, range(len(names)))]
    alike = all(names_in(feature) in ([], names) for feature in features)
    if may_be_names or not alike or not all(dtype.startswith(NUMBERS) for dtype in dtypes):
        raise ValueError("not all values are places among the same classes")
    return [_with(part, name, first) for part in parts]


def _by_name(part: Dataset, name: str, names: list[str], feature: Any) -> Dataset:
    """The rows with the numbers of these classes in a column of other numbers, or of names."""
    if name not in part.column_names:
        return _with(part, name, feature)
    own, places = names_in(part.features[name]), {one: place for place, one in enumerate(names)}

    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(one) for one in value]
        if isinstance(value, str):
            return places.get(value)  # an empty field has none
        return value if value is None or not 0 <= value < len(own) else places[own[value]]  # -1 is no class

    return _replaced(part, name, [place(value) for value in part[name]], feature)


def _texts(values: Any) -> Iterator[str]:
    """The texts in a column, also inside lists, without empty ones."""
    for value in values:
        if isinstance(value, list):
            yield from _texts(value)
        elif isinstance(value, str) and value.strip():
            yield value


def _leaf(feature: Any) -> Any:
    """What a list, or a list of lists, consists of; any other feature as it is."""
    inner = getattr(feature, "feature", None)
    return feature if inner is None else _leaf(inner)


def _around(feature: Any, leaf: Any) -> Any:
    """Lists in lists as in a feature, of something else."""
    inner = getattr(feature, "feature", None)
    return leaf if inner is None else List(_around(inner, leaf))


def names_in(feature: Any) -> list[str]:
    """The names of the classes, of which each row has one or a list."""
    leaf = _leaf(feature)
    return list(leaf.names) if isinstance(leaf, ClassLabel) else []


def _with(part: Dataset, name: str, feature: Any) -> Dataset:
    """The rows with this feature for a column."""
    if name not in part.column_names:
        return _replaced(part, name, [None] * len(part), feature)
    return part if part.features[name] == feature else part.cast_column(name, feature)


def _as_json(part: Dataset, name: str) -> Dataset:
    """The rows with a column of JSON, where a text is JSON, too: else `7` would become a number."""
    if name not in part.column_names:
        return _with(part, name, Json())
    own = part.features[name]
    values = (_named(as_written(value, own), names_in(own)) for value in part[name])
    return _replaced(
        part, name, [None if value is None else json.dumps(value, default=str) for value in values], Json()
    )


def _named(value: Any, names: list[str]) -> Any:
    """A value with the names of its classes, of which -1 is none."""
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if names and value is not None and 0 <= value < len(names) else value


def _replaced(part: Dataset, name: str, values: list[Any], feature: Any) -> Dataset:
    """The rows with other values in a column."""
    column = Dataset.from_dict({name: values}, features=Features({name: feature}))
    others = [other for other in part.column_names if other != name]
    return concatenate_datasets([part.select_columns(others), column], axis=1) if others else column
