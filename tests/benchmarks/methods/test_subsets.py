"""Given sets of adapters, and sets that another rule chooses, trained from the start."""

import pytest
from benchmarks.methods import RIVALS
from models import lora_bert
from stored import result

from weightlora.adapters import find_adapters
from weightlora.train.result import write_result


def test_rivals_keep_what_they_are_told_and_say_what_there_was(tmp_path, setting):
    names = [a.name for a in find_adapters(lora_bert(target_modules=["query", "value"]))]
    prepared = RIVALS["subset"](setting(options={"kept": names[1:3]}))
    assert [adapter.name for adapter in find_adapters(prepared.model)] == names[1:3]
    assert prepared.candidates is not None and list(prepared.candidates) == names

    write_result(tmp_path / "seed-0.json", result("lora", evidence={"3": {"gradient": [1, 4, 2, 3]}}))
    told = {"rule": "gradient", "at": 3, "evidence": str(tmp_path)}
    prepared = RIVALS["rival"](setting(options=told))
    assert [adapter.name for adapter in find_adapters(prepared.model)] == [names[1], names[3]]
    with pytest.raises(ValueError, match=r"keep_parameters=1 is less than .* the 2 smallest adapters"):
        RIVALS["rival"](setting(options={**told, "keep_parameters": 1}))
    with pytest.raises(
        ValueError, match=r"the evidence .*seed-7\.json is missing: run the method that records it first"
    ):
        RIVALS["rival"](setting(options=told, seed=7))


def test_random_sets_can_be_of_some_modules_only(setting):
    prepared = RIVALS["random-without"](setting(options={"without": r".*\.query"}))
    assert [adapter.name.split(".")[-1] for adapter in find_adapters(prepared.model)] == ["value", "value"]
    assert len(prepared.callbacks) == 1, "which takes all but K away as training begins"
