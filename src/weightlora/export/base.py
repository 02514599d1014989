"""Find and load the base model of an adapter: whole, or without weights, to read its modules' names and shapes."""

import contextlib
import importlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import ParamWrapper
from torch import Tensor, nn

from ..adapters import LoraAdapter, base_model_of, find_adapters
from ..errors import ModelError
from ..mlx_names import reads_more_than_text
from ..wording import first_line
from .pairs import PREFIX

TASKS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
"""PEFT's `task_type` -> the class of Transformers that loads the base."""

BASE = "--base DIR_OR_ID (in Python base=...)"
TENSORS = '--check tensors (in Python check="tensors")'
"""Settings that errors name, for both ways of calling."""

HEADED = tuple(TASKS[task].removeprefix("AutoModel") for task in ("QUESTION_ANS", "SEQ_CLS", "TOKEN_CLS"))
"""In the names of classes whose models have a head that the checkpoint of a language model lacks."""

SEED = 0
"""Of the weights that the base lacks, such as a pooler."""

HEADS = ("classifier.weight", "score.weight", "out_proj.weight")


def is_lost(name: str | None) -> bool:
    """Whether a base has no name, or a path at which there is no directory."""
    return not name or (str(name).startswith((".", "/", "~")) and not Path(str(name)).is_dir())


class Base:
    """The base model of an adapter, loaded where it is asked for.

    Args:
        adapter: PEFT's config of the adapter, which names the base and its revision on the hub.
        given: A directory or a hub id that takes the place of that name.
        heads: Tensors of `modules_to_save`, which tell the number of classes.
        optional: Whether the adapter can be exported without its base, by comparing tensors only.
        names: Of what is adapted, which tell a language model loaded alone from the whole that it is in.
    """

    def __init__(
        self,
        adapter: LoraConfig,
        given: str | None = None,
        heads: Mapping[str, Tensor] | None = None,
        optional: bool = False,
        names: Iterable[str] = (),
    ):
        self.adapter, self.optional, self.names = adapter, optional, list(names)
        self.given = given
        self.name: str | None = given or adapter.base_model_name_or_path
        self.revision: str = "main" if given else adapter.revision or "main"
        self.heads = heads or {}

    def config(self) -> Any:
        """Transformers' config of the base.

        Raises:
            ModelError: If it cannot be found or read.
        """
        from transformers import AutoConfig

        if not self.name:
            raise ModelError(f"the adapter does not name its base model: give it with {BASE}{self._or()}.")
        try:
            config = AutoConfig.from_pretrained(self.name, revision=self.revision, **self._labels())
        except Exception as error:  # a broken config fails wherever it is used
            raise self._missing(error) from error
        return config

    def is_found(self) -> bool:
        """Whether the config can be read, for exports that need less without a base."""
        try:
            self.config()
        except ModelError:
            return False
        return True

    def is_tied(self) -> bool:
        """Whether the output layer has the weights of the input embeddings.

        Raises:
            ModelError: If the config cannot be found or read.
        """
        config = self.config()
        return any(getattr(one, "tie_word_embeddings", False) for one in (config, config.get_text_config()))

    def load(self, written: bool = False) -> nn.Module:
        """The base with its weights, in float32, for evaluation.

        Args:
            written: Whether its weights will be written, so that none may be random. Otherwise only the head of a
                classifier is asked for: random weights elsewhere are the same each time.

        Raises:
            ModelError: If it cannot be found or loaded, or its weights are quantized.
        """
        config, labels = self.config(), self._labels()
        if getattr(config, "quantization_config", None) is not None:
            raise ModelError(
                f"the base model {self.name} is quantized: give the original weights with {BASE}{self._or()}."
            )
        auto = self._class(config)
        config = _part_for(auto, config)
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            try:
                model, found = auto.from_pretrained(
                    self.name,
                    revision=self.revision,
                    config=config,
                    dtype=torch.float32,
                    ignore_mismatched_sizes=bool(labels),
                    output_loading_info=True,
                )
            except Exception as error:
                raise self._missing(error) from error
        self._refuse_lost(model, found["missing_keys"], written)
        base: nn.Module = model.eval()
        return base

    def _refuse_lost(self, model: nn.Module, missing: Iterable[str], written: bool) -> None:
        """Raise if neither the base nor the adapter has some weights: Transformers has drawn others.

        A pooler of an encoder is let pass, because checkpoints of language models have none, and embeddings are
        rarely taken from it.
        """
        known, kind = dict(model.named_parameters()), type(model).__name__
        lost = {name.rpartition(".")[0] for name in missing if name in known and PREFIX + name not in self.heads}
        if "For" not in kind:
            lost = {name for name in lost if not f".{name}".partition(".pooler")[1]}
        if lost and (written or any(part in kind for part in HEADED)):
            names = ", ".join(sorted(lost))
            raise ModelError(
                f"neither the base model {self.name} nor the adapter has the weights of {names}, which were random in "
                f"training: give the base that it was trained on with {BASE}, or train again with "
                f"modules_to_save={sorted(lost)}{self._or()}."
            )

    def skeleton(self) -> nn.Module:
        """The base without weights, on the meta device.

        Raises:
            ModelError: If its config cannot be found, or makes no model.
        """
        config = self.config()
        auto = self._class(config)
        config = _part_for(auto, config)
        make = auto.from_config if hasattr(auto, "from_config") else auto._from_config
        try:
            with init_empty_weights(include_buffers=False):
                model: nn.Module = make(config)
                return model
        except Exception as error:
            raise self._missing(error) from error

    def on_parameters(self) -> dict[str, LoraAdapter]:
        """Path in the file -> adapter on a parameter, which no file names: PEFT adapts the model without weights.

        Raises:
            ModelError: If the base is not found, or PEFT does not take the adapter's config.
        """
        skeleton = self.skeleton()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of patterns, which PEFT looks for among the modules first
                model = get_peft_model(skeleton, self.adapter, low_cpu_mem_usage=True)
        except Exception as error:
            raise self._missing(error) from error
        paths = {id(module): name for name, module in base_model_of(model).named_modules()}
        return {
            paths[id(found.layer)]: found
            for found in find_adapters(model, "default", check=False)
            if isinstance(found.layer, ParamWrapper)
        }

    def _labels(self) -> dict[str, int]:
        named = (self.adapter.auto_mapping or {}).get("base_model_class") or ""  # where there is no task_type
        if self.adapter.task_type not in ("SEQ_CLS", "TOKEN_CLS") and "Classification" not in named:
            return {}
        rows = [
            t.shape[0] for end in HEADS for key, t in self.heads.items() if key.endswith(f".{end}") and t.dim() == 2
        ]
        return {"num_labels": rows[0]} if rows else {}

    def _class(self, config: Any) -> Any:
        """The class that loads the base: by task, by PEFT's record, or by the config's own word."""
        import transformers

        names = getattr(config, "architectures", None) or ["AutoModel"]
        named = getattr(transformers, names[0], transformers.AutoModel)
        task = str(getattr(self.adapter.task_type, "value", self.adapter.task_type))
        if task in TASKS:
            auto = getattr(transformers, TASKS[task])
            sound = transformers.AutoModelForAudioClassification  # its classes are called ForSequenceClassification
            if task == "SEQ_CLS" and type(config) not in auto._model_mapping and type(config) in sound._model_mapping:
                auto = sound
            return named if self._needs_more(auto, config) else auto
        record = self.adapter.auto_mapping or {}
        name, library = record.get("base_model_class"), str(record.get("parent_library"))
        if name and library.split(".")[0] == "transformers":  # nothing else is imported on a file's word
            found = getattr(transformers, name, None)
            with contextlib.suppress(ImportError):  # this version of Transformers does not have the module
                found = found or getattr(importlib.import_module(library), name, None)
            if found is not None:
                return found
        return named

    def _needs_more(self, auto: Any, config: Any) -> bool:
        """Whether the class of a task has no such model, or only the language model of one that was adapted."""
        if auto.__name__.removeprefix("AutoModel") in HEADED:
            return False
        if type(config) not in auto._model_mapping:
            return True
        if not reads_more_than_text(self.names):
            return False
        return auto._model_mapping[type(config)].config_class is not type(config)

    def _missing(self, error: Exception) -> ModelError:
        what = "cannot be found" if is_lost(self.name) else "cannot be loaded"
        return ModelError(f"the base model {self.name} {what} ({first_line(error)}): give it with {BASE}{self._or()}.")

    def _or(self) -> str:
        return f", or compare the tensors alone with {TENSORS}" if self.optional else ""


def _part_for(model_class: Any, config: Any) -> Any:
    """The config of the language model, for the class of one that is loaded alone; else the config as it is."""
    wanted = getattr(model_class, "config_class", type(config))
    if wanted is type(config):
        return config
    text = config.get_text_config()
    return text if wanted is type(text) else config
