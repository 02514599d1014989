"""Methods that exist only to be compared: PEFT's other tuners, and rules that rank modules before any training."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    EvaConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    VeraConfig,
    get_peft_model,
    initialize_lora_eva_weights,
)
from peft.helpers import KappaTuneSelector
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weightlora.adapters import find_adapters
from weightlora.train.methods import Method, Prepared, Setting, equal_rank, keep_only, sizes_of


class AllocateCallback(TrainerCallback):
    """Calls AdaLoRA's rank allocation where PEFT asks for it: after the optimizer step, with the gradients there."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        kwargs["model"].base_model.update_and_allocate(state.global_step)


def grad_norm(setting: Setting) -> Prepared:
    """The K modules with the largest gradient of B on one batch, before training."""
    model = setting.lora()
    model(**next(iter(setting.batches()))).loss.backward()
    gradients = {adapter.name: adapter.factors[1].grad for adapter in find_adapters(model)}
    scores = {name: 0.0 if gradient is None else float(gradient.norm()) for name, gradient in gradients.items()}
    model.zero_grad()
    return keep_only(model, sorted(scores, key=lambda name: -scores[name])[: setting.keep])


def kappa(setting: Setting) -> Prepared:
    """The K modules whose weights have the lowest condition number (PEFT's KappaTune)."""
    order = KappaTuneSelector(setting.model, show_progress=False).get_best_targets()
    model = setting.lora()
    names = {adapter.name for adapter in find_adapters(model)}
    return keep_only(model, [name for name in order if name in names][: setting.keep])


def eva(setting: Setting) -> Prepared:
    """EVA: directions of the activations as A, and ranks by the variance they explain, at the cost of K modules.

    The pooler is left out: it sees a part of a tensor, which PEFT cannot handle.
    """
    sizes = sizes_of(setting)
    rank = equal_rank(setting, sizes, sizes)
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
    """What a module sees as one row per token, without the padding.

    Where a module sees something other than tokens, such as DeBERTa's relative positions, all of it is used.
    """
    seen: Tensor = inputs[0] if isinstance(inputs, tuple | list) else inputs
    return seen[mask] if seen.shape[:-1] == mask.shape else seen.flatten(0, -2)


def adalora(setting: Setting) -> Prepared:
    """AdaLoRA: ranks are pruned while training, to the cost of K modules on average."""
    sizes = sizes_of(setting)
    rank = equal_rank(setting, sizes, sizes)
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


def loha(setting: Setting) -> Prepared:
    """LoHa on all modules."""
    config = LoHaConfig(r=setting.rank, alpha=setting.alpha, **setting.target)
    return Prepared(get_peft_model(setting.model, config))


def lokr(setting: Setting) -> Prepared:
    """LoKr on all modules."""
    config = LoKrConfig(r=setting.rank, alpha=setting.alpha, **setting.target)
    return Prepared(get_peft_model(setting.model, config))


def vera(setting: Setting) -> Prepared:
    """VeRA on all modules, at PEFT's default rank."""
    return Prepared(get_peft_model(setting.model, VeraConfig(r=256, **setting.target)))


METHODS: Mapping[str, Method] = {
    "grad-norm": Method(grad_norm, reads_weights=True, keeps=True),
    "kappa": Method(kappa, reads_weights=True, keeps=True),
    "eva": Method(eva, reads_weights=True),
    "adalora": Method(adalora, learning_rate=1e-2),
    "loha": Method(loha),
    "lokr": Method(lokr),
    "vera": Method(vera, learning_rate=4e-3),
}
