"""Methods that train a given set of adapters, or a set that another rule would choose, from the start."""

from dataclasses import replace
from pathlib import Path

from weightlora.adapters import find_adapters
from weightlora.errors import DataError
from weightlora.train.methods import Method, Prepared, Setting, keep_only, random
from weightlora.train.result import read_result

from .scores import choose


def subset(setting: Setting) -> Prepared:
    """The adapters in `options["kept"]`."""
    return keep_only(setting.lora(), setting.options["kept"])


def kept_by(folder: str, seed: int) -> list[str]:
    """What the stored run of a method kept at a seed; `folder` has the results of the method.

    The seeds of tuning have several runs, one for each learning rate. The one with the lowest loss counts.

    Raises:
        DataError: There is no such run, or it has no LoRA adapters.
    """
    place = Path(folder)
    path = place / f"seed-{seed}.json"
    tuned = (place.parents[1] / "tuning" / place.name).glob("lr-*.json") if len(place.parts) > 2 else ()
    found = [read_result(path)] if path.exists() else [run for run in map(read_result, tuned) if run.seed == seed]
    if not found:
        raise DataError(f"the result {path} is missing: run the method that chooses first.")
    kept = min(found, key=lambda run: run.held_out_loss).kept
    if not kept:
        raise DataError(f"{path} kept no LoRA adapter: name the results of a method that does.")
    return kept


def rival(setting: Setting) -> Prepared:
    """The K adapters that `options["rule"]` chooses by the evidence of LoRA on all modules at step `options["at"]`.

    `options["evidence"]` is the folder with the results of LoRA that recorded evidence; the one of the same seed is
    read. Without `options["keep_parameters"]`, the adapters have at most the parameters of K average ones.
    """
    path = Path(setting.options["evidence"]) / f"seed-{setting.seed}.json"
    if not path.exists():
        raise DataError(f"the evidence {path} is missing: run the method that records it first.")
    record = (read_result(path).evidence or {})[str(setting.options["at"])]
    model = setting.lora()
    sizes = {adapter.name: adapter.size for adapter in find_adapters(model)}
    most = setting.options.get("keep_parameters")
    return keep_only(model, choose(record, sizes, setting.options["rule"], setting.keep, most))


def random_without(setting: Setting) -> Prepared:
    """K random adapters among the modules whose names do not match the regular expression `options["without"]`."""
    target = {**setting.target, "exclude_modules": setting.options["without"]}
    return random(replace(setting, target=target, options={}))


METHODS = {
    "subset": Method(subset, frozenset({"kept"})),
    "rival": Method(rival, frozenset({"rule", "at", "evidence", "keep_parameters"})),
    "random-without": Method(random_without, frozenset({"without"})),
}
