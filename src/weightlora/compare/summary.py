"""What a comparison found: tables, paired differences in words, and the files that it leaves."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.text import Text

from .. import __version__
from ..errors import DataError
from ..files import write_json, write_text
from ..train.methods import METHODS
from ..train.result import HARDLY, Result
from ..wording import counted
from .comparison import Comparison
from .picture import draw_comparison
from .runs import Run, read_results
from .statistics import excludes_zero, key_of, summarize
from .tables import difference, escape_markdown, markdown_table, print_table, with_interval
from .tuning import choose_rates, losses_by_rate, remarks_on_rates

NAME = "comparison"
ASKED_FOR = ("random", "lora")
"""Without them, a comparison says little: a note asks for those that are missing."""
LISTS = ("peft-default", "listed")
REFERENCES = (*ASKED_FOR, *LISTS)
HARDWARE = ("device", "capability")
"""What a result tells of its machine, and what may change a loss."""
LEGEND = (
    "Rows are sorted by held-out loss, lower is better. ± is the half-width of the 95 % t-interval over seeds. `vs` "
    "is the mean difference in loss to the reference at the same seeds, in brackets the number of seeds at which the "
    "method has the lower loss. ▼ (lower) and ▲ (higher) mark intervals that exclude 0. They are not corrected for "
    "the number of methods. Parameters are the trainable ones without the task head. The time of a step is the median "
    "over steps and seeds, before → after adapters were removed. Other programs on the machine make it longer. Memory "
    "is the peak of the GPU, or of the process without one."
)


def read_summary(comparison: Comparison) -> dict[str, Any]:
    """The summary of the results that are there.

    Returns:
        A JSON object: the task, the model and the data; `methods` (label -> statistics, rate and cost, by loss);
        `losses` (label -> seed -> loss); `tuning` (method -> rate -> loss); `findings` and `notes` (sentences).

    Raises:
        DataError: If there are no results yet.
    """
    tuned = losses_by_rate(read_results(comparison.tuning_runs()))
    rates = choose_rates(comparison.rates, tuned)
    found = read_results(comparison.runs(rates))
    if not found:
        if tuned:
            raise DataError(
                f"{comparison.directory} has results of the choice of learning rates alone: run the same comparison "
                "again, and it goes on from there."
            )
        there = any(
            run.output.exists() for run in (*comparison.tuning_runs(), *comparison.runs(comparison.first_rates))
        )
        raise DataError(
            f"the results in {comparison.directory} are of another version than {__version__}, or damaged: run the "
            "comparison again, which sets them aside."
            if there
            else f"{comparison.directory} has no results yet: run the comparison first."
        )
    results = [result for _, result in found]
    rows = summarize(results, REFERENCES)["tasks"][comparison.task]
    first = results[0]
    for label, row in rows.items():
        row |= _costs([result for result in results if result.label == label])
        row["learning_rate"] = rates[label]
    return {
        "format": 1,
        "weightlora": __version__,
        "task": comparison.task,
        "model": comparison.model,
        "split": first.split,
        "rows": None if first.plan is None else first.plan["rows"],
        "steps": first.steps,
        "methods": rows,
        "losses": {label: {str(r.seed): r.held_out_loss for r in results if r.label == label} for label in rows},
        "tuning": {method: {f"{rate:g}": loss for rate, loss in losses.items()} for method, losses in tuned.items()},
        "findings": _findings(rows),
        "notes": [
            *_missing(comparison, found, rates),
            *_missing_rates(comparison, tuned),
            *remarks_on_rates(comparison.rates, rates),
            *_mixed(results),
            *_not_learned(results),
            *_notes(rows, comparison.methods),
        ],
    }


def write_summary(summary: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write `comparison.json`, `comparison.md` and `comparison.png` into a directory; returns the files."""
    place = directory / NAME
    losses = {label: [*by_seed.values()] for label, by_seed in summary["losses"].items()}
    return [
        write_json(place.with_suffix(".json"), summary),
        write_text(place.with_suffix(".md"), render_summary(summary)),
        draw_comparison(_title(summary), summary["methods"], losses, place.with_suffix(".png")),
    ]


def render_summary(summary: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    parts = [f"# {escape_markdown(_title(summary))}", escape_markdown(_subtitle(summary))]
    for title, header, rows in _tables(summary):
        parts += [f"## {title}", markdown_table(header, rows)]
    parts.append(LEGEND)
    for title in ("findings", "notes"):
        if summary[title]:
            parts += [f"## {title.capitalize()}", "\n".join(f"- {escape_markdown(line)}" for line in summary[title])]
    return "\n\n".join(parts) + "\n"


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables, how to read them, the findings and the notes."""
    console.print(Text(f"{_title(summary)}\n{_subtitle(summary)}"))
    for title, header, rows in _tables(summary):
        print_table(console, header, rows, title)
    console.print(Text(LEGEND, style="dim"))
    for line in (*summary["findings"], *summary["notes"]):
        console.print(Text(f"- {line}"))


def _costs(results: Sequence[Result]) -> dict[str, Any]:
    """Adapters and memory: means over seeds. Time: the median, as a run beside others is much slower.

    None where a run did not measure it.
    """

    def over_seeds(values: Sequence[float | None], statistic: Callable[[list[float]], float]) -> float | None:
        known = [value for value in values if value is not None]
        return statistic(known) if len(known) == len(values) else None

    evidence = [result.evidence or {} for result in results]
    return {
        "adapters_before": results[0].adapters_before,
        "adapters_after": over_seeds([result.adapters_after for result in results], fmean),
        "step_seconds_before": over_seeds([found.get("step_seconds_before") for found in evidence], median),
        "step_seconds_after": over_seeds([found.get("step_seconds_after") for found in evidence], median),
        "peak_gpu_bytes": over_seeds([result.peak_gpu_bytes for result in results], fmean),
        "peak_process_bytes": over_seeds([result.peak_process_bytes for result in results], fmean),
    }


def _title(summary: Mapping[str, Any]) -> str:
    model = "/".join(Path(summary["model"]).parts[-2:])  # a hub id, or a directory, which may be called "model"
    return f"{summary['task']}: {model}"


def _subtitle(summary: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{name} {count:,}" for name, count in (summary["rows"] or {}).items())
    return f"{summary['steps']:,} steps; rows: {rows}."


def _tables(summary: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of each table."""
    methods = summary["methods"]
    metric = next(iter(methods.values()))["metric"]["name"]
    references = [name for name in REFERENCES if name in methods]
    quality, cost = [], []
    for label, row in methods.items():
        versus = [row[key_of(name)] for name in references]
        differences = ["" if found is None else f"{difference(found)} ({found['wins']})" for found in versus]
        means = [with_interval(row["loss"]), with_interval(row["metric"])]
        quality.append([label, f"{row['learning_rate']:g}", str(row["seeds"]), *means, *differences])
        adapters = f"{row['adapters_after']:g} of {row['adapters_before']}"
        cost.append([label, adapters, f"{row['trainable_parameters']:,}", _step(row), _memory(row)])
    header = ["method", "rate", "seeds", "held-out loss", metric, *(f"vs {name}" for name in references)]
    tables = [
        ("Quality", header, quality),
        ("Cost", ["method", "adapters", "parameters", "time of a step", "peak memory"], cost),
    ]
    if tuning := summary["tuning"]:
        rates = sorted({rate for losses in tuning.values() for rate in losses}, key=float)
        cells = [
            [method, *(f"{losses[rate]:.4f}" if rate in losses else "" for rate in rates)]
            for method, losses in tuning.items()
        ]
        tables.append(("Loss on the validation split, by learning rate", ["method", *rates], cells))
    return tables


def _step(row: Mapping[str, Any]) -> str:
    before, after = row["step_seconds_before"], row["step_seconds_after"]
    if after is None:
        return ""
    texts = list(
        dict.fromkeys(f"{s:.2f} s" if s >= 1 else f"{1000 * s:.3g} ms" for s in (before, after) if s is not None)
    )
    return " → ".join(texts) if row["adapters_after"] != row["adapters_before"] else texts[-1]


def _memory(row: Mapping[str, Any]) -> str:
    found = row["peak_gpu_bytes"] or row["peak_process_bytes"]
    return "" if found is None else f"{found / 2**30:.2f} GiB"


def _findings(rows: Mapping[str, Any]) -> list[str]:
    """Each paired difference in one sentence, with what may be concluded from it."""
    findings = []
    for reference in (name for name in REFERENCES if name in rows):
        for label, row in rows.items():
            versus = row[key_of(reference)]
            if versus is None or (label in REFERENCES and REFERENCES.index(label) < REFERENCES.index(reference)):
                continue
            if reference in LISTS and "selection" not in METHODS[label].options:
                continue  # a list is what a choice has to beat
            size = with_interval(versus, "+.4f")
            if versus["ci"] is None:
                verdict = "there is no interval, because one seed says nothing about the spread between seeds"
            elif excludes_zero(versus):
                lower = "lower" if versus["mean"] < 0 else "higher"
                verdict = f"the loss is significantly {lower} (95 % interval excludes 0)"
            else:
                verdict = "the difference is not statistically significant (95 % interval contains 0)"
            findings.append(f"{label} against {reference}: {size} in loss; {verdict}.")
    return findings


def _missing(comparison: Comparison, found: Sequence[tuple[Run, Result]], rates: Mapping[str, float]) -> list[str]:
    """Runs that have no result."""
    done = {(run.method, run.seed) for run, _ in found}
    notes = []
    for method in comparison.methods:
        if method not in rates:
            notes.append(f"{method} has no learning rate yet: its runs on the validation split are missing.")
        elif gone := [str(seed) for seed in range(comparison.seeds) if (method, seed) not in done]:
            others = "" if len(gone) == comparison.seeds else ", so its figures are those of the other seeds"
            notes.append(
                f"{method} has no result at seed {', '.join(gone)}{others}: run the same command again, with {method} "
                f"in --methods and --seeds {comparison.seeds}."
            )
    return notes


def _mixed(results: Sequence[Result]) -> list[str]:
    """What the runs were made with, where it differs between them."""
    made = [{**result.versions, **{name: result.machine.get(name) for name in HARDWARE}} for result in results]
    several = {name: sorted({str(one[name]) for one in made if one.get(name)}) for name in made[0]}
    mixed = [f"{name} {' and '.join(values)}" for name, values in several.items() if len(values) > 1]
    if not mixed:
        return []
    return [
        f"The runs were not made with the same software and hardware ({'; '.join(mixed)}), which may change a "
        "loss: run the comparison anew, in another --output_dir."
    ]


def _not_learned(results: Sequence[Result]) -> list[str]:
    """Methods of which a run hardly learned: their mean is one of two kinds of runs."""
    notes = []
    for label in dict.fromkeys(result.label for result in results):
        own = [result for result in results if result.label == label]
        if failed := [result for result in own if result.hardly_learned]:
            seeds = ", ".join(str(result.seed) for result in failed)
            notes.append(
                f"{len(failed)} of {counted(len(own), 'run')} of {label} hardly learned (seed {seeds}): the loss is "
                f"at least {100 * HARDLY:g} % of {failed[0].guess_loss:.4f}, the loss of the best guess that reads no "
                "text. Half the learning rate with a longer warmup, or more steps, may help."
            )
    return notes


def _missing_rates(comparison: Comparison, tuned: Mapping[str, Mapping[float, float]]) -> list[str]:
    """Rates without a result, of methods that have one at another rate."""
    gone = {
        method: [f"{rate:g}" for rate in comparison.rates[method] if rate not in losses]
        for method, losses in tuned.items()
    }
    return [
        f"{method} has no result at the learning rate {', '.join(rates)}: its rate was chosen among the others."
        for method, rates in gone.items()
        if rates
    ]


def _notes(rows: Mapping[str, Any], methods: Sequence[str]) -> list[str]:
    notes = []
    if single := [label for label, row in rows.items() if row["loss"]["ci"] is None]:
        notes.append(
            f"No interval for {', '.join(single)}: one seed says nothing about the spread between seeds. Give --seeds "
            "3 or more."
        )
    absent = [name for name in ASKED_FOR if name not in methods]
    if absent:
        them = "it" if len(absent) == 1 else "them"
        notes.append(f"There is no comparison with {' and '.join(absent)}: add {them} to --methods.")
    return notes
