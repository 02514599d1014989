"""Every method that the benchmark compares, as one table: name -> how to prepare the model.

Each is a configuration of PEFT, of this package, or of nothing at all (full fine-tuning). Methods that choose modules
start from the same LoRA on all modules, so that at one seed the factors they keep are drawn alike.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    EvaConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
    initialize_lora_eva_weights,
)
from peft.helpers import KappaTuneSelector
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .. import WeightLoraCallback, WeightLoraConfig
from ..adapters import block_of, find_adapters
from ..adapters.outcome import describe_
from ..adapters.surgery import disconnect_


@dataclass(frozen=True)
class Setting:
    """What a method is told.

    Attributes:
        model: The base model with its task head; no adapters yet.
        target: PEFT's `target_modules`, `task_type` and `modules_to_save`: what may be adapted.
        rank: r of LoRA on all modules.
        alpha: Its `lora_alpha`; methods with another rank keep `alpha / rank`.
        dropout: Its `lora_dropout`.
        keep: K.
        select_steps: T.
        steps: Optimizer steps in all.
        seed: Of the run.
        batches: Yields training batches, for methods that look at data before training.
        options: More fields for `WeightLoraConfig`, or for PEFT's config.
    """

    model: nn.Module
    target: dict[str, Any]
    rank: int
    alpha: int
    dropout: float
    keep: int
    select_steps: int
    steps: int
    seed: int
    batches: Callable[[], Iterable[dict[str, Tensor]]]
    options: dict[str, Any] = field(default_factory=dict)

    def lora(self, rank: int | None = None, **settings: Any) -> PeftModel:
        """LoRA on all modules, at the given rank and the setting's scaling."""
        rank = rank or self.rank
        alpha = self.alpha * rank / self.rank
        base = {"r": rank, "lora_alpha": alpha, "lora_dropout": self.dropout, **self.target}
        return get_peft_model(self.model, LoraConfig(**(base | settings)))


@dataclass(frozen=True)
class Prepared:
    """A model ready to train, and the callbacks its method needs.

    `candidates` is given by methods that choose before training: name and size of every adapter there was.
    """

    model: nn.Module
    callbacks: tuple[TrainerCallback, ...] = ()
    candidates: dict[str, int] | None = None


class AllocateCallback(TrainerCallback):
    """Calls AdaLoRA's rank allocation where PEFT asks for it: after the optimizer step, with the gradients there."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        kwargs["model"].base_model.update_and_allocate(state.global_step)


def keep_only(model: PeftModel, names: Iterable[str]) -> Prepared:
    """LoRA on the named modules alone."""
    kept, adapters = set(names), find_adapters(model)
    candidates = {adapter.name: adapter.size for adapter in adapters}
    disconnect_(model, [adapter for adapter in adapters if adapter.name not in kept])
    describe_(model, "default")
    return Prepared(model, candidates=candidates)


def _keep_best(model: PeftModel, scores: dict[str, float], keep: int) -> Prepared:
    return keep_only(model, sorted(scores, key=lambda name: -scores[name])[:keep])


def _equal_rank(setting: Setting, n: int) -> int:
    """The rank at which all n modules cost what K cost at `setting.rank`, to the nearest."""
    return max(1, round(setting.rank * setting.keep / n))


def count_adapters(setting: Setting) -> int:
    """n, counted on a throw-away copy of the structure."""
    with torch.random.fork_rng(devices=[]):
        model = setting.lora()
        n = len(find_adapters(model))
        model.unload()
    return n


def lora(setting: Setting) -> Prepared:
    """LoRA on all modules."""
    return Prepared(setting.lora(**setting.options))


def lora_equal(setting: Setting) -> Prepared:
    """LoRA on all modules, at the rank that has the trainable parameters of K modules."""
    return Prepared(setting.lora(_equal_rank(setting, count_adapters(setting))))


def random(setting: Setting) -> Prepared:
    """K modules at random, from the start (RLoRA)."""
    return _select(setting, WeightLoraConfig, selection="random", select_steps=0)


def top(setting: Setting) -> Prepared:
    """The K modules nearest the output."""
    model = setting.lora()
    return keep_only(model, [adapter.name for adapter in find_adapters(model)][-setting.keep :])


def last_layers(setting: Setting) -> Prepared:
    """All modules of as many of the last layers as K has room for, one at the least."""
    model = setting.lora()
    layers: dict[str, list[str]] = {}
    for adapter in find_adapters(model):
        layers.setdefault(block_of(adapter.name), []).append(adapter.name)
    names: list[str] = []
    for layer in reversed(list(layers.values())):
        if names and len(names) + len(layer) > setting.keep:
            break
        names += layer
    return keep_only(model, names)


def _select(setting: Setting, make: Callable[..., WeightLoraConfig], **settings: Any) -> Prepared:
    base = {"keep": setting.keep, "select_steps": setting.select_steps, "seed": setting.seed}
    config = make(**(base | settings | setting.options))
    return Prepared(setting.lora(), (WeightLoraCallback(config),))


def weightlora(setting: Setting) -> Prepared:
    """This package's default."""
    return _select(setting, WeightLoraConfig)


def weightlora_plus(setting: Setting) -> Prepared:
    """This package's default, then a rank that spends what was freed."""
    return _select(setting, WeightLoraConfig, expand="qr")


def weightlora_paper(setting: Setting) -> Prepared:
    """The paper's gates, with the authors' settings."""
    return _select(setting, WeightLoraConfig.paper)


def weightlora_paper_plus(setting: Setting) -> Prepared:
    """The paper's WeightLoRA+, with the authors' settings: three halvings, then higher ranks."""
    return _select(setting, WeightLoraConfig.paper, plus=True)


def grad_norm(setting: Setting) -> Prepared:
    """The K modules with the largest gradient of B on one batch, before training."""
    model = setting.lora()
    model(**next(iter(setting.batches()))).loss.backward()
    gradients = {adapter.name: adapter.factors[1].grad for adapter in find_adapters(model)}
    scores = {name: 0.0 if gradient is None else float(gradient.norm()) for name, gradient in gradients.items()}
    model.zero_grad()
    return _keep_best(model, scores, setting.keep)


def kappa(setting: Setting) -> Prepared:
    """The K modules whose weights have the lowest condition number (PEFT's KappaTune)."""
    order = KappaTuneSelector(setting.model, show_progress=False).get_best_targets()
    model = setting.lora()
    names = {adapter.name for adapter in find_adapters(model)}
    return keep_only(model, [name for name in order if name in names][: setting.keep])


def eva(setting: Setting) -> Prepared:
    """EVA: directions of the activations as A, and ranks spread by the variance they explain, at K modules' cost.

    Without the pooler: it sees a part of a tensor, which PEFT cannot take in.
    """
    rank = _equal_rank(setting, count_adapters(setting))
    settings = {"init_lora_weights": "eva", "eva_config": EvaConfig(rho=2.0), "exclude_modules": r".*\bpooler\b.*"}
    model = setting.lora(rank, **settings)
    batches = [{key: value for key, value in batch.items() if key != "labels"} for batch in setting.batches()]
    initialize_lora_eva_weights(
        model,
        batches,
        prepare_model_inputs_fn=_mask_of_tokens,
        prepare_layer_inputs_fn=_rows_of_tokens,
        show_progress_bar=False,
    )
    return Prepared(model)


def _mask_of_tokens(batch: dict[str, Tensor], config: LoraConfig) -> Tensor:
    return batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()


def _rows_of_tokens(inputs: Any, mask: Tensor, name: str) -> Tensor:
    """What a module sees, a row a token without padding, and all of it where it sees something else than the tokens.

    Something else are the relative positions of DeBERTa and what a decoder reads, for example.
    """
    seen: Tensor = inputs[0] if isinstance(inputs, tuple | list) else inputs
    return seen[mask] if seen.shape[:-1] == mask.shape else seen.flatten(0, -2)


def adalora(setting: Setting) -> Prepared:
    """AdaLoRA: ranks pruned while training, to K modules' cost on average."""
    rank = _equal_rank(setting, count_adapters(setting))
    config = AdaLoraConfig(
        init_r=rank + (rank + 1) // 2,
        target_r=rank,
        tinit=setting.steps // 10,
        tfinal=setting.steps // 2,
        deltaT=5,
        total_step=setting.steps,
        lora_alpha=round(setting.alpha * rank / setting.rank),
        lora_dropout=setting.dropout,
        **setting.target,
    )
    return Prepared(get_peft_model(setting.model, config), (AllocateCallback(),))


def dora(setting: Setting) -> Prepared:
    """DoRA on all modules."""
    return Prepared(setting.lora(use_dora=True))


def rslora(setting: Setting) -> Prepared:
    """LoRA with alpha / sqrt(r) on all modules."""
    return Prepared(setting.lora(use_rslora=True))


def loha(setting: Setting) -> Prepared:
    """LoHa on all modules."""
    config = LoHaConfig(r=setting.rank, alpha=setting.alpha, **setting.target)
    return Prepared(get_peft_model(setting.model, config))


def lokr(setting: Setting) -> Prepared:
    """LoKr on all modules."""
    config = LoKrConfig(r=setting.rank, alpha=setting.alpha, **setting.target)
    return Prepared(get_peft_model(setting.model, config))


def vera(setting: Setting) -> Prepared:
    """VeRA on all modules, at its paper's rank."""
    return Prepared(get_peft_model(setting.model, VeraConfig(r=256, **setting.target)))


def full(setting: Setting) -> Prepared:
    """Full fine-tuning."""
    return Prepared(setting.model)


METHODS: dict[str, Callable[[Setting], Prepared]] = {
    "lora": lora,
    "lora-equal": lora_equal,
    "random": random,
    "top": top,
    "last-layers": last_layers,
    "weightlora": weightlora,
    "weightlora-plus": weightlora_plus,
    "weightlora-paper": weightlora_paper,
    "weightlora-paper-plus": weightlora_paper_plus,
    "grad-norm": grad_norm,
    "kappa": kappa,
    "eva": eva,
    "adalora": adalora,
    "dora": dora,
    "rslora": rslora,
    "loha": loha,
    "lokr": lokr,
    "vera": vera,
    "full": full,
}
