import copy
import json
from pathlib import Path
from typing import Any

import pytest

from weightlora.compare.settings import read_settings
from weightlora.errors import WeightLoraError

ENTRY = {"learning_rates": [1e-3], "settings": {"task": "text-classification"}}
GOOD = {"format": 1, "seeds": 2, "data": {"train_file": "0"}, "shared": {"rank": 1}, "methods": {"lora": ENTRY}}


def changed(*keys: str, to: Any) -> str:
    content = copy.deepcopy(GOOD)
    inner: Any = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return json.dumps(content)


def test_good_settings_are_read(tmp_path: Path):
    (tmp_path / "settings.json").write_text(json.dumps(GOOD))
    assert read_settings(tmp_path / "settings.json") == GOOD


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", "[" * 100_000, '{"format": 1}', changed("format", to=2)),
        *(changed("seeds", to=value) for value in (0, -1, "2", None, 10**9, [1])),
        *(changed("data", to=value) for value in (3, ["a"], {"train_file": 3})),
        *(changed("shared", to=value) for value in (3, None)),
        *(changed("methods", to=value) for value in (3, {}, ["lora"], {"lora": 3}, {"../../x": ENTRY}, {"": ENTRY})),
        *(changed("methods", "lora", "learning_rates", to=value) for value in (3, [], ["a"], [0.0], [float("nan")])),
        *(changed("methods", "lora", "settings", to=value) for value in (3, {}, {"task": 3})),
    ],
)
def test_changed_settings_are_one_sentence(tmp_path: Path, text: str):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(WeightLoraError) as error:
        read_settings(tmp_path / "settings.json")
    assert str(error.value).startswith(str(tmp_path)) and str(error.value).endswith(".")
