"""Given sets of adapters, and sets that another rule chooses, trained from the start."""

import pytest
from benchmarks.methods import ALL_METHODS
from benchmarks.methods.subsets import kept_by
from models import lora_bert
from stored import result

from weightlora.adapters import find_adapters
from weightlora.train.result import write_result


def test_rivals_keep_what_they_are_told_and_say_what_there_was(tmp_path, setting):
    names = [a.name for a in find_adapters(lora_bert(target_modules=["query", "value"]))]
    prepared = ALL_METHODS["subset"].prepare(setting(options={"kept": names[1:3]}))
    assert [adapter.name for adapter in find_adapters(prepared.model)] == names[1:3]
    assert prepared.candidates is not None and list(prepared.candidates) == names

    write_result(tmp_path / "seed-0.json", result("lora", evidence={"3": {"gradient": [1, 4, 2, 3]}}))
    told = {"rule": "gradient", "at": 3, "evidence": str(tmp_path)}
    prepared = ALL_METHODS["rival"].prepare(setting(options=told))
    assert [adapter.name for adapter in find_adapters(prepared.model)] == [names[1], names[3]]
    with pytest.raises(ValueError, match=r"keep_parameters allows 1 parameter, less than .* the 2 smallest adapters"):
        ALL_METHODS["rival"].prepare(setting(options={**told, "keep_parameters": 1}))
    with pytest.raises(
        ValueError, match=r"the evidence .*seed-7\.json is missing: run the method that records it first"
    ):
        ALL_METHODS["rival"].prepare(setting(options=told, seed=7))


def test_what_another_method_kept_is_that_of_its_run_at_the_same_seed(tmp_path):
    names = [a.name for a in find_adapters(lora_bert(target_modules=["query", "value"]))]
    for seed in (0, 1):
        write_result(tmp_path / f"seed-{seed}.json", result("weightlora", seed, kept=names[seed : seed + 2]))
    assert [kept_by(str(tmp_path), seed) for seed in (0, 1)] == [names[:2], names[1:3]]
    with pytest.raises(ValueError, match=r"the result .*seed-2\.json is missing: run the method that chooses first"):
        kept_by(str(tmp_path), 2)
    for rate, loss, kept in (("0.001", 0.5, names[:1]), ("0.002", 0.4, names[2:])):
        made = result("probe", 1000, kept=kept, metrics={"validation": {"held_out_loss": loss, "accuracy": 0.5}})
        write_result(tmp_path / "tuning" / "probe" / f"lr-{rate}.json", made)
    of = str(tmp_path / "results" / "probe")
    assert kept_by(of, 1000) == names[2:], "the better rate of a seed of tuning"
    write_result(tmp_path / "seed-3.json", result("full", 3, kept=None))
    with pytest.raises(ValueError, match=r"seed-3\.json kept no LoRA adapter: name the results of a method that does"):
        kept_by(str(tmp_path), 3)


def test_random_sets_can_be_of_some_modules_only(setting):
    prepared = ALL_METHODS["random-without"].prepare(setting(options={"without": r".*\.query"}))
    assert [adapter.name.split(".")[-1] for adapter in find_adapters(prepared.model)] == ["value", "value"]
    assert len(prepared.callbacks) == 1, "which takes all but K away as training begins"
