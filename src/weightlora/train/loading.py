"""Load config, tokenizer and model. If one cannot be loaded, one sentence says why."""

import contextlib
import copy
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
import transformers
from accelerate import init_empty_weights
from huggingface_hub import is_offline_mode
from peft.utils import CONFIG_NAME, ModulesToSaveWrapper
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase
from transformers.utils import is_flash_attn_2_available

from ..errors import ConfigError, ModelError, WeightLoraError
from ..extras import require
from ..selection.adapting import SAVED
from ..tensors import DTYPES
from ..values import check_known
from ..wording import first_line, shortened
from .arguments import Recipe
from .gguf import check_gguf
from .settings import ModelArguments
from .work import Work, check_embeddings, token_to_pad


def load_config(arguments: ModelArguments) -> Any:
    """The model's config.

    Raises:
        ModelError: The config cannot be loaded, or is that of an adapter.
        ConfigError: No model was given, or a GGUF file that this Transformers reads wrongly.
    """
    if arguments.model is None:
        raise ConfigError("--model is missing: give a directory or a hub id.")
    if arguments.gguf_file is not None:
        check_gguf()
    if os.path.isfile(os.path.join(arguments.model, CONFIG_NAME)):
        raise ModelError(
            f"the model {shortened(arguments.model)} is an adapter of PEFT: give the model that it was trained on, or "
            "write both as one model with weightlora export --profile merged."
        )
    with _in_one_sentence("model", arguments.model):
        return AutoConfig.from_pretrained(arguments.model, **_where(arguments))


def load_tokenizer(arguments: ModelArguments) -> PreTrainedTokenizerBase:
    """The tokenizer, with a pad token.

    Raises:
        ModelError: It cannot be loaded or has no words, or it has no pad token and none was given.
        ConfigError: The given pad token is not in its vocabulary.
    """
    name = arguments.tokenizer or arguments.model
    with _in_one_sentence("tokenizer of", str(name)):
        tokenizer = AutoTokenizer.from_pretrained(name, **_where(arguments))
    if len(tokenizer) - len({*tokenizer.all_special_ids}) < 3:  # what Transformers makes where its files are missing
        raise ModelError(
            f"{shortened(str(name))} has no tokenizer, or one without words: save the tokenizer there, or give "
            "--tokenizer."
        )
    if arguments.pad_token is not None:
        if arguments.pad_token not in tokenizer.get_vocab():
            raise ConfigError(
                f"pad_token={arguments.pad_token!r} is not in the vocabulary of {name}: give a token that "
                f"is, {token_to_pad(tokenizer)}."
            )
        tokenizer.pad_token = arguments.pad_token
    if tokenizer.pad_token is None:
        raise ModelError(f"the tokenizer of {name} has no pad token: give --pad_token, {token_to_pad(tokenizer)}.")
    return tokenizer


def fit_config_(config: Any, work: Work, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the settings of the task and the tokenizer into the model's config.

    Raises:
        ModelError: The model has no embedding for a token.
    """
    check_embeddings(work, config, tokenizer)
    for name, value in work.config.items():
        setattr(config, name, value)
    config.pad_token_id = tokenizer.pad_token_id


def empty_model(work: Work, config: Any) -> nn.Module:
    """The model without weights, on the meta device, to count its modules and parameters.

    Raises:
        ModelError: This architecture has no head for the task.
    """
    auto = getattr(transformers, work.auto_class)
    if type(config) not in auto._model_mapping:
        raise ModelError(f"{config.model_type} models have no {work.auto_class}: choose another model for this task.")
    try:
        with init_empty_weights(include_buffers=False):
            model: Any = auto.from_config(config)
        model.tie_weights()  # in there, each name gets a parameter of its own
        return cast(nn.Module, model)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, AttributeError, KeyError) as error:
        raise ModelError(
            f"the config of the model makes no {work.auto_class} ({first_line(error)}): correct it, or choose another "
            "model."
        ) from error


def load_model(work: Work, config: Any, recipe: Recipe) -> tuple[nn.Module, list[str]]:
    """The model with its weights, quantized and with gradient checkpointing if asked for.

    Returns:
        The model, and the modules that have to be trained in full, because the checkpoint lacks their weights.

    Raises:
        ModelError: The weights cannot be loaded, or a setting is unknown.
        MissingPackageError: `load_in_4bit` is set and bitsandbytes is not installed.
    """
    arguments, auto = recipe.model, getattr(transformers, work.auto_class)
    settings: dict[str, Any] = {"dtype": dtype_of(recipe), "config": config}
    if (attention := attention_of(recipe)) is not None:
        settings["attn_implementation"] = attention
    if arguments.gguf_file is not None:  # whose blocks stay packed otherwise, where a kernel computes with them
        settings["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if arguments.load_in_4bit:
        require("bitsandbytes")
        compute = torch.bfloat16 if recipe.training.bf16 else torch.float32
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=_unquantized(work, config, arguments),
        )
        settings["device_map"] = {"": recipe.training.device}
    with _in_one_sentence("model", str(arguments.model)):
        model: Any
        model, found = auto.from_pretrained(arguments.model, output_loading_info=True, **settings, **_where(arguments))
    fresh = [] if recipe.method.method == "full" else _fresh(model, found["missing_keys"], work)
    if recipe.training.gradient_checkpointing:
        kwargs = recipe.training.gradient_checkpointing_kwargs or {"use_reentrant": False}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
        model.enable_input_require_grads()
    return model, fresh


def _unquantized(work: Work, config: Any, arguments: ModelArguments) -> list[str] | None:
    """The modules that train in full, so they cannot be quantized: heads, and those that the checkpoint lacks.

    If there are any, also the output layer, which is what Transformers leaves out of its own accord (None).
    """
    found = {*SAVED.get(work.task_type, ()), *fresh_modules(work, config, arguments, local=False)}
    if not found:
        return None
    model: Any = empty_model(work, config)
    output = model.get_output_embeddings()
    return sorted(found | {name for name, module in model.named_modules() if module is output})


def fresh_modules(work: Work, config: Any, arguments: ModelArguments, local: bool = True) -> list[str]:
    """The modules that `load_model` will name, from the names in the checkpoint alone; no weight is read.

    Empty for a GGUF file, and where the checkpoint is not on this machine yet and only to be looked for here.
    """
    if arguments.gguf_file is not None:
        return []
    settings = {"config": copy.deepcopy(config), "local_files_only": local, **_where(arguments)}
    settings |= {"device_map": "meta", "use_kernels": False}  # Transformers 5.25 would ask for kernels of "meta"
    try:
        auto = getattr(transformers, work.auto_class)
        model, found = auto.from_pretrained(arguments.model, output_loading_info=True, **settings)
    except Exception:  # `load_model` says what is wrong
        return []
    return _missing(model, found["missing_keys"], work)[0]


def _fresh(model: Any, missing: Iterable[str], work: Work) -> list[str]:
    """The modules to train in full. Warns of them, and of those that no adapter can contain."""
    fresh, lost = _missing(model, missing, work)
    if fresh:
        warnings.warn(
            f"the checkpoint has no weights of {', '.join(fresh)}, so they are random: they are trained in full, and "
            "saved with the adapter.",
            stacklevel=3,
        )
    if lost:
        warnings.warn(
            f"the checkpoint has no weights of {', '.join(lost)}, so they are random, and an adapter does not contain "
            f"them: load the checkpoint with {work.auto_class} and num_labels={model.config.num_labels}, save it and "
            "the tokenizer to a directory, and give that as --model.",
            stacklevel=3,
        )
    return fresh


def _missing(model: Any, missing: Iterable[str], work: Work) -> tuple[list[str], list[str]]:
    """The modules whose weights the checkpoint lacks, but for the head that PEFT trains and saves anyway.

    Examples are the pooler of DeBERTa, `pre_classifier` of DistilBERT and `classification_head` of BART. First come
    those that PEFT can save in full, then those with parts of their own.
    """
    known, saved = dict(model.named_parameters()), SAVED.get(work.task_type, set())
    lost = [name for name in missing if name in known and saved.isdisjoint(name.split("."))]
    names = sorted({name.rpartition(".")[0] for name in lost})
    with_parts = [name for name in names if [*model.get_submodule(name).children()]]
    return [name for name in names if name not in with_parts], with_parts


def dtype_of(recipe: Recipe) -> torch.dtype:
    """The dtype of the base model's weights. Weights that train are always float32."""
    full = recipe.method.method == "full"
    name = recipe.model.dtype or ("bfloat16" if recipe.training.bf16 and not full else "float32")
    check_known("dtype", name, DTYPES)
    return DTYPES[name]


def check_heads(recipe: Recipe, model: nn.Module) -> None:
    """Raise a `ConfigError` if a module of this model trains in full, and would get inputs of another dtype."""
    dtype, training = dtype_of(recipe), recipe.training
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"  # with accelerate launch
    if dtype == torch.float32 or training.bf16 or training.fp16 or launched or recipe.model.load_in_4bit:
        return
    if any(isinstance(module, ModulesToSaveWrapper) for module in model.modules()):
        raise ConfigError(
            f"dtype={recipe.model.dtype} does not fit the head, which trains in float32: add "
            f"--{'bf16' if dtype == torch.bfloat16 else 'fp16'}, which computes in both, or leave dtype out."
        )


def attention_of(recipe: Recipe) -> str | None:
    """The attention implementation to ask for. None leaves the choice to the model."""
    wanted = recipe.model.attn_implementation
    if wanted != "auto":
        return wanted
    fits = torch.cuda.is_available() and not recipe.training.use_cpu and dtype_of(recipe) != torch.float32
    return "flash_attention_2" if fits and is_flash_attn_2_available() else None


def _where(arguments: ModelArguments) -> dict[str, Any]:
    where = {"revision": arguments.revision, "cache_dir": arguments.cache_dir, "gguf_file": arguments.gguf_file}
    return {name: value for name, value in where.items() if value is not None}


@contextlib.contextmanager
def _in_one_sentence(what: str, name: str) -> Iterator[None]:
    if name.startswith((".", "/", "~")) and not os.path.isdir(name):
        raise ModelError(f"the {what} {shortened(name)} is missing: there is no such directory.")
    try:
        yield
    except WeightLoraError:
        raise
    except Exception as error:  # a broken config fails wherever it is used
        reason, short = first_line(error), shortened(name)
        if "ignore_mismatched_sizes" in str(error):
            reason = (
                "its weights have other shapes than this task needs, such as a head for another number of classes; "
                "give a checkpoint without that head, or data with its classes"
            )
        if "backend tokenizer" in str(error):
            reason = "its files are missing; save the tokenizer there, or give --tokenizer"
        if os.path.isdir(name):
            raise ModelError(f"the {what} {short} cannot be loaded: {reason}.") from error
        if is_offline_mode():
            raise ModelError(
                f"the {what} {short} is not in the local cache, and HF_HUB_OFFLINE is set: download it once with "
                f"`hf download {short}` (after `hf auth login`, if it is gated), or give a directory."
            ) from error
        raise ModelError(f"the {what} {short} cannot be loaded from the hub: {reason}.") from error
