"""Converts stored results from format 1 to format 2. It ran once, on the results in this folder.

`python -m benchmarks.convert DIRECTORY...` rewrites every result below the directories. Files of format 2 are left
alone. Values keep every digit. These fields of format 1 were ambiguous, and are resolved here:

* `method` was the label of a row, and `experiment["method"]` the method.
* `trainable_parameters` were without the task head in experiments, and with it in sweeps over recipes. The heads of
  the stored sweeps are known: a span head of two outputs on MiniLM's 384 dimensions, and none in generation.
* `peak_memory_bytes` was the memory of the process, or of the GPU where there was one. All stored results are of CPUs.
* Metrics had no unit: those of SQuAD and ROUGE are in percent, all others but the perplexity are fractions.
* `steps` and the split that was evaluated were settings only.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weightlora.errors import DataError
from weightlora.train.result import HELD_OUT_LOSS, Result, write_result

PATTERNS = ("**/results/*/seed-*.json", "**/tuning/*/lr-*.json")
PERCENT = {"question-answering": {"f1", "exact_match"}, "seq2seq": {"rouge1", "rouge2", "rougeL"}}
FAMILIES = {"squad": "question-answering", "xsum": "seq2seq", "sst2": "causal"}
HEADS = {"question-answering": 384 * 2 + 2, "seq2seq": 0, "causal": 0}
NO_UNIT = {HELD_OUT_LOSS, "perplexity"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.convert", description="convert results of format 1")
    parser.add_argument("directories", nargs="+", type=Path)
    counts = {True: 0, False: 0}
    for path in files_in(parser.parse_args().directories):
        counts[convert_file(path)] += 1
    print(f"{counts[True]} files converted, {counts[False]} left alone")
    return 0


def files_in(directories: list[Path]) -> Iterator[Path]:
    """Every file that may be a result."""
    for directory in directories:
        for pattern in PATTERNS:
            yield from sorted(directory.glob(pattern))


def convert_file(path: Path) -> bool:
    """Rewrite a file in format 2; False if it is not of format 1."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != 1:
        return False
    write_result(path, convert(content))
    return True


def convert(old: Mapping[str, Any]) -> Result:
    """The content of a file of format 1 as a result.

    Raises:
        DataError: A sweep was of a task or a device whose fields cannot be told from the file.
    """
    settings = old["experiment"]
    recipe = settings.get("settings")
    family = None if recipe is None else FAMILIES.get(recipe["task"])
    if recipe is not None and (family is None or old["machine"]["device"] != "cpu"):
        raise DataError(f"the sweep of {recipe['task']} is not one of the stored ones: repeat the run.")
    if recipe is None:
        split, steps, total = settings["evaluate_on"], settings["steps"], (None, None)
        parameters = _pair(old["trainable_parameters"])
    else:
        assert family is not None
        split, steps, total = "validation", recipe["max_steps"], _pair(old["trainable_parameters"])
        parameters = (int(total[0] or 0) - HEADS[family], int(total[1] or 0) - HEADS[family])
    return Result(
        task=old["task"],
        method=settings["method"],
        label=old["method"],
        seed=old["seed"],
        settings=settings,
        metric=old["metric"]["name"],
        metric_units={name: unit_of(name, family) for name in (HELD_OUT_LOSS, *old["metrics"])},
        metrics={split: {HELD_OUT_LOSS: old["loss"], **old["metrics"]}},
        train_loss=None,
        steps=steps,
        names=old.get("names"),
        sizes=old.get("sizes"),
        kept=old["kept"],
        adapters_before=old["adapters"]["before"],
        adapters_after=old["adapters"]["after"],
        adapter_parameters_before=parameters[0],
        adapter_parameters_after=parameters[1],
        trainable_parameters_before=total[0],
        trainable_parameters_after=total[1],
        optimizer_state_bytes_before=None,
        optimizer_state_bytes_after=None,
        peak_process_bytes=old["peak_memory_bytes"],
        peak_gpu_bytes=None,
        wall_seconds=old["wall_seconds"],
        versions=old["versions"],
        machine=old["machine"],
        commit=old.get("commit"),
        plan=None,
        evidence=old.get("evidence"),
    )


def unit_of(name: str, family: str | None) -> str:
    """The unit of a metric in format 1."""
    if name in NO_UNIT:
        return "none"
    return "percent" if name in PERCENT.get(family or "", ()) else "fraction"


def _pair(values: Mapping[str, Any]) -> tuple[Any, Any]:
    return values["before"], values["after"]


if __name__ == "__main__":
    raise SystemExit(main())
