"""Measures a training step with LoRA on every module, during the selection, and after the disconnect.

MiniLM-L6, 36 modules, rank 8, fixed batches of 32 x 64 tokens. A step is forward, backward, AdamW, and the step of the
selector. All variants are in one process and take turns, in another order each round, so a slow moment of the machine
affects all of them. A ratio is the median over rounds of the quotient of two steps in one round on the same batch.
"""

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from rich import filesize
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoTokenizer, DataCollatorWithPadding

from weightlora import WeightLora, WeightLoraConfig, __version__
from weightlora.adapters import find_adapters
from weightlora.files import write_json
from weightlora.measure import optimizer_state_bytes, saved_activation_bytes, trainable_parameters
from weightlora.train.demo import ENCODER_LINEARS, load_reviews, minilm_path

from .workloads.minilm import minilm_lora, tokenize

KEEP, BATCH_SIZE, TOKENS, BATCHES = 9, 32, 64, 8
LEARNING_RATE = 5e-4
NEVER = 10**9
RESULTS = Path(__file__).parent / "results" / "speed.json"

Batch = dict[str, torch.Tensor]


@dataclass
class Variant:
    """A model with its optimizer, an optional selector, and the seconds of its timed steps, one per round."""

    label: str
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    selector: WeightLora | None = None
    seconds: list[float] = field(default_factory=list)

    def step(self, batch: Batch) -> None:
        self.model(**batch).loss.backward()
        self.optimizer.step()
        if self.selector is not None:
            self.selector.step()
        self.optimizer.zero_grad()


@dataclass(frozen=True)
class Target:
    """The wanted value of a quotient of two variants."""

    what: str
    value: float
    holds: Callable[[float], bool]
    wanted: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="timed steps of each variant")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where to write the figures")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds} is too small: give at least 1")

    warnings.simplefilter("ignore", FutureWarning)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    console = Console(highlight=False)
    batches = load_batches()
    variants = build_variants(batches)
    time_rounds(variants, batches, args.rounds, console)
    figures = measure(variants, batches[0])
    checked = targets(variants, figures)
    show(console, figures, checked)
    write(args.output, figures, checked, args.rounds)
    return 0


def load_batches() -> list[Batch]:
    """The first IMDb reviews that fill all 64 tokens, so that no batch has padding."""
    tokenizer = AutoTokenizer.from_pretrained(minilm_path())
    rows = tokenize(load_reviews("imdb")["train"][:1000], tokenizer, TOKENS)
    full = [row for row in rows if len(row["input_ids"]) == TOKENS]
    collate = DataCollatorWithPadding(tokenizer)
    return [dict(collate(full[start : start + BATCH_SIZE])) for start in range(0, BATCHES * BATCH_SIZE, BATCH_SIZE)]


def build_variants(batches: list[Batch]) -> dict[str, Variant]:
    """All variants after their warm-up. The selection phase does not end while it is timed."""
    every = lora("LoRA, all 36", ENCODER_LINEARS)
    stoiht = selecting("selecting, stoiht", WeightLoraConfig(keep=KEEP, select_steps=NEVER, selection="stoiht"))
    credit = selecting("selecting, credit", WeightLoraConfig(keep=KEEP, select_steps=NEVER))
    after = selecting("after, kept 9", WeightLoraConfig(keep=KEEP, select_steps=BATCHES))
    for batch in batches:
        for variant in (every, stoiht, credit, after):
            variant.step(batch)
    assert after.selector is not None and after.selector.phase == "train"
    kept = lora("LoRA, same 9", after.selector.kept)
    top = lora("LoRA, top 9", after.selector.names[-KEEP:])
    for variant in (kept, top):
        for batch in batches:
            variant.step(batch)
    return {"all": every, "stoiht": stoiht, "credit": credit, "after": after, "direct": kept, "top": top}


def lora(label: str, target_modules: str | list[str]) -> Variant:
    model = minilm_lora(seed=0, target_modules=target_modules).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Variant(label, model, torch.optim.AdamW(trained, lr=LEARNING_RATE))


def selecting(label: str, config: WeightLoraConfig) -> Variant:
    variant = lora(label, ENCODER_LINEARS)
    variant.selector = WeightLora(variant.model, variant.optimizer, config)
    return variant


def time_rounds(variants: dict[str, Variant], batches: list[Batch], rounds: int, console: Console) -> None:
    """Time one step of every variant per round. Each round begins with another variant."""
    order = list(variants.values())
    for number in track(range(rounds), "timing", console=console, disable=not console.is_terminal, transient=True):
        batch = batches[number % len(batches)]
        for place in range(len(order)):
            variant = order[(number + place) % len(order)]
            start = time.perf_counter()
            variant.step(batch)
            variant.seconds.append(time.perf_counter() - start)


def measure(variants: dict[str, Variant], batch: Batch) -> dict[str, dict[str, Any]]:
    """Variant -> its figures."""
    base = variants["all"]
    figures = {}
    for key, variant in variants.items():
        ratios = quotients(variant, base)
        figures[key] = {
            "label": variant.label,
            "adapters": len(find_adapters(variant.model)),
            "trainable_parameters": trainable_parameters(variant.model),
            "optimizer_state_bytes": optimizer_state_bytes(variant.optimizer),
            "saved_activation_bytes": saved_activation_bytes(variant.model, batch),
            "step_seconds": statistics.median(variant.seconds),
            "step_time_ratio": statistics.median(ratios),
            "step_time_ratio_quartiles": quartiles(ratios),
        }
    return figures


def quotients(variant: Variant, base: Variant) -> list[float]:
    return [mine / other for mine, other in zip(variant.seconds, base.seconds, strict=True)]


def quartiles(values: list[float]) -> list[float]:
    return [values[0]] * 2 if len(values) == 1 else statistics.quantiles(values, n=4)[::2]


def targets(variants: dict[str, Variant], figures: dict[str, dict[str, Any]]) -> list[Target]:
    def seconds(one: str, other: str) -> float:
        return statistics.median(quotients(variants[one], variants[other]))

    kept = [figures[key]["saved_activation_bytes"] for key in ("after", "direct")]
    return [
        Target(
            "step time: selecting by credit / LoRA on all", seconds("credit", "all"), lambda x: x <= 1.05, "≤ 1.05"
        ),
        Target(
            "step time: selecting by stoiht / LoRA on all", seconds("stoiht", "all"), lambda x: x <= 1.05, "≤ 1.05"
        ),
        Target("step time: after / LoRA on all", seconds("after", "all"), lambda x: x <= 0.85, "≤ 0.85"),
        Target(
            "step time: after / LoRA on the same 9",
            seconds("after", "direct"),
            lambda x: abs(x - 1) <= 0.03,
            "1 ± 0.03",
        ),
        Target("activations: after / LoRA on the same 9", kept[0] / kept[1], lambda x: abs(x - 1) <= 0.01, "1 ± 0.01"),
    ]


def show(console: Console, figures: dict[str, dict[str, Any]], checked: list[Target]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for title in ("adapters", "trainable", "optimizer", "activations", "step time"):
        table.add_column(title, justify="right")
    for row in figures.values():
        low, high = row["step_time_ratio_quartiles"]
        table.add_row(
            row["label"],
            str(row["adapters"]),
            f"{row['trainable_parameters']:,}",
            filesize.decimal(row["optimizer_state_bytes"]),
            filesize.decimal(row["saved_activation_bytes"]),
            f"{row['step_time_ratio']:.2f} ({low:.2f}-{high:.2f})",
        )
    console.print(table)
    console.print("Step time: median and quartiles, LoRA on all 36 modules = 1.\n", style="dim")
    for target in checked:
        verdict = "[green]met[/]" if target.holds(target.value) else "[red]missed[/]"
        console.print(f"{target.what:<45} {target.value:.3f}, wanted {target.wanted:<8} {verdict}")


def write(path: Path, figures: dict[str, dict[str, Any]], checked: list[Target], rounds: int) -> None:
    content = {
        "format": 1,
        "model": "all-MiniLM-L6-v2",
        "settings": {"rounds": rounds, "batch_size": BATCH_SIZE, "tokens": TOKENS, "rank": 8, "keep": KEEP},
        "variants": figures,
        "targets": [{"what": t.what, "value": t.value, "wanted": t.wanted, "met": t.holds(t.value)} for t in checked],
        "environment": {
            "weightlora": __version__,
            "torch": torch.__version__,
            "peft": peft.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
        },
    }
    write_json(path, content)


if __name__ == "__main__":
    raise SystemExit(main())
