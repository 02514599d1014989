"""The study of alignment: `trace(G^T B A)` of every adapter, and whether the adapters that were kept have more of it.

G is the gradient of the loss with respect to the full weight of the module, `out x in`. It is never computed. With
`h = W x + s B A x`, `dL/dB = s G A^T`, so `<dL/dB, B> = s trace(G^T B A)`. Only the gradient of B, `out x r`, is
needed. This holds for every layer that is linear in B: convolutions, embeddings, experts, quantized weights.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from peft import LoraConfig, get_peft_model
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from transformers import set_seed

from weightlora import WeightLora, WeightLoraConfig
from weightlora.adapters import LoraAdapter
from weightlora.compare.tables import escape_markdown, markdown_table
from weightlora.errors import ConfigError

from .subject import Subject


@dataclass(frozen=True)
class AlignmentSettings:
    """How the model is trained, and on how many batches the alignment is measured.

    Attributes:
        rank: r of LoRA on all modules; alpha is 4 r.
        learning_rate: Constant learning rate of AdamW.
        select_steps: T, the training steps before the measurement and the choice.
        keep: K, or a fraction.
        batches: Batches to measure on. Their rows were not trained on, if there are enough rows.
        batch_size: Rows per batch, for training and measurement.
        seed: Seed of adapters, dropout and the order of the rows.
    """

    rank: int
    learning_rate: float
    select_steps: int
    keep: int | float
    batches: int
    batch_size: int
    seed: int


def measure_alignment(
    model: nn.Module, adapters: Sequence[LoraAdapter], batches: Iterable[Mapping[str, Any]]
) -> Iterator[Tensor]:
    """Yield `trace(G^T B A)` of every adapter for each batch: a float64 CPU tensor of shape `(n,)`.

    The model is in evaluation mode meanwhile, because dropout would change G. Nothing else is changed, not even
    `.grad`. Adapters need a scaling other than 0, and no gate.
    """
    factors = [adapter.factors[1] for adapter in adapters]
    values = [factor.detach().double() for factor in factors]
    training = model.training
    model.eval()
    try:
        for batch in batches:
            gradients = torch.autograd.grad(model(**batch).loss, factors, allow_unused=True)
            yield torch.tensor(
                [
                    0.0 if gradient is None else float((gradient.double() * value).sum()) / adapter.scaling
                    for adapter, value, gradient in zip(adapters, values, gradients, strict=True)
                ],
                dtype=torch.float64,
            )
    finally:
        model.train(training)


def study_alignment(
    subject: Subject,
    settings: AlignmentSettings,
    device: torch.device,
    choice: Mapping[str, Any] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Train LoRA on all modules for T steps, measure the alignment, and compare it with what was kept.

    Args:
        subject: Model and training rows.
        settings: How to train and measure.
        device: Where to train and measure.
        choice: Content of the `selection.json` to compare with. If None, update credit chooses after the T steps.
        advance: Called after each training step and each measured batch.

    Returns:
        `adapters`, in model order: name, `trace` (mean over batches), `standard_error` (over batches), `score`,
        `kept`; `figures`: what `compare` says; `rows`: how many different rows were seen.

    Raises:
        ConfigError: If the choice is of other adapters, or keeps all of them.
    """
    set_seed(settings.seed)
    lora = LoraConfig(r=settings.rank, lora_alpha=4 * settings.rank, **subject.target)
    model = get_peft_model(copy.deepcopy(subject.model), lora).to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)
    config = WeightLoraConfig(keep=settings.keep, select_steps=settings.select_steps, seed=settings.seed)
    selector = WeightLora(model, optimizer, config)
    names = selector.names
    kept, scores = (None, {}) if choice is None else _read_choice(choice, names)
    if (config.number_to_keep(len(names)) if kept is None else len(kept)) in (0, len(names)):
        raise ConfigError(
            f"all or none of the {len(names)} adapters are kept, so there is nothing to compare: keep some."
        )
    stream = _stream(subject, settings, device)
    for batch in itertools.islice(stream, settings.select_steps):
        model(**batch).loss.backward()
        optimizer.step()
        selector.observe()
        optimizer.zero_grad()
        advance()
    traces = []
    for trace in measure_alignment(model, selector.adapters, itertools.islice(stream, settings.batches)):
        traces.append(trace)
        advance()
    if kept is None:
        scores = {**selector.scores}
        selector.advance()
        kept = set(selector.kept)
    matrix = torch.stack(traces)
    mean, error = matrix.mean(0).tolist(), (matrix.std(0) / math.sqrt(len(traces))).tolist()
    adapters = [
        {"name": name, "trace": mean[i], "standard_error": error[i], "score": scores[name], "kept": name in kept}
        for i, name in enumerate(names)
    ]
    seen = min(len(subject.train), (settings.select_steps + settings.batches) * settings.batch_size)
    return {"adapters": adapters, "figures": compare(adapters), "rows": seen}


def _stream(subject: Subject, settings: AlignmentSettings, device: torch.device) -> Iterator[dict[str, Any]]:
    """Batches of the training rows in a random order, without end."""
    order = torch.randperm(len(subject.train), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    rows = (subject.train[index] for index in itertools.cycle(order))
    while True:
        batch = subject.collate(list(itertools.islice(rows, settings.batch_size)))
        yield send_to_device(dict(batch), device)


def _read_choice(choice: Mapping[str, Any], names: Sequence[str]) -> tuple[set[str], dict[str, float | None]]:
    """Kept names and scores of a `selection.json`, which must have the same adapters."""
    try:
        scores = {adapter["name"]: adapter["score"] for adapter in choice["adapters"]}
        kept = {adapter["name"] for adapter in choice["adapters"] if adapter["kept"]}
    except (KeyError, TypeError) as error:
        raise ConfigError(f"the run's selection.json has an adapter without name, score or kept: {error}.") from error
    if scores.keys() != set(names):
        strange = sorted(scores.keys() ^ set(names))
        raise ConfigError(
            f"the run chose from {len(scores)} adapters, and this model has {len(names)}; {strange[0]!r} is not in "
            "both: give the run's own model."
        )
    return kept, scores


def compare(adapters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How alignment relates to the choice. Descent is `-trace`: what an update gains, to first order.

    `auc`: the chance that a kept adapter descends more than one that was not kept (0.5: no relation), with the
    two-sided p-value of Mann and Whitney's test. `auc_magnitude`: the same for `|trace|`. `spearman_kept` and
    `spearman_score`: Spearman's rank correlation of descent with being kept (1 or 0) and with the score; None where
    it is not defined.
    """
    descent = [-adapter["trace"] for adapter in adapters]
    kept = [bool(adapter["kept"]) for adapter in adapters]
    scores = [adapter["score"] for adapter in adapters]
    inside, outside = ([d for d, k in zip(descent, kept, strict=True) if k == side] for side in (True, False))
    scored = all(score is not None and math.isfinite(score) for score in scores)
    return {
        "auc": float(roc_auc_score(kept, descent)),
        "auc_p": float(stats.mannwhitneyu(inside, outside).pvalue),
        "auc_magnitude": float(roc_auc_score(kept, [abs(value) for value in descent])),
        "spearman_kept": _spearman(descent, [float(value) for value in kept]),
        "spearman_score": _spearman(descent, scores) if scored else None,
    }


def _spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(stats.spearmanr(one, other).statistic)


def render_alignment_markdown(study: Mapping[str, Any]) -> str:
    """The figures in words, and a table of the adapters, from the most descent to the least.

    Args:
        study: The content of `alignment.json`.
    """
    adapters = sorted(study["adapters"], key=lambda adapter: adapter["trace"])
    rows = [
        [a["name"], f"{a['trace']:+.2e} ± {a['standard_error']:.1e}", _number(a["score"]), "kept" if a["kept"] else ""]
        for a in adapters
    ]
    return (
        "\n\n".join([summarize_alignment(study), markdown_table(["adapter", "trace(GᵀBA)", "score", ""], rows)]) + "\n"
    )


def summarize_alignment(study: Mapping[str, Any]) -> str:
    """What was measured, and the figures in words, without the table of the adapters."""
    settings, modules = study["settings"], len(study["adapters"])
    text = (
        f"{escape_markdown(study['model'])}, LoRA of rank {settings['rank']} on {modules} modules after "
        f"{settings['select_steps']} steps of {settings['batch_size']} rows; mean and standard error of trace(GᵀBA) "
        f"over {settings['batches']} batches. If it is negative, the adapter's update lowers the loss. The choice is "
        f"by {study['chosen_by']}."
    )
    return f"{text}\n\n{say(study)}"


def say(study: Mapping[str, Any]) -> str:
    """The figures in a few sentences."""
    figures, adapters = study["figures"], study["adapters"]
    kept = sum(adapter["kept"] for adapter in adapters)
    means = [
        sum(a["trace"] for a in adapters if a["kept"] == side) / (kept if side else len(adapters) - kept)
        for side in (True, False)
    ]
    told = (
        "significantly different from chance" if figures["auc_p"] < 0.05 else "not significantly different from chance"
    )
    others = len(adapters) - kept
    return (
        f"The mean trace is {means[0]:+.2e} for the {kept} kept adapters and {means[1]:+.2e} for the other {others}. "
        f"Of a kept adapter and another one, the kept one has the lower trace with probability {figures['auc']:.2f} "
        f"(AUC; 0.5 means no relation), which is {told} (p = {figures['auc_p']:.2g}). It has the larger magnitude "
        f"with probability {figures['auc_magnitude']:.2f}. Spearman's correlation of minus the trace is "
        f"{_number(figures['spearman_kept'])} with being kept, and {_number(figures['spearman_score'])} with the "
        "score."
    )


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3g}"
