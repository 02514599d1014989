"""Models whose weights are in a GGUF file."""

from typing import Any

import transformers
from transformers.utils.versions import require_version

from ..errors import ConfigError
from ..extras import require

__all__ = ["check_gguf", "without_quantization"]


def check_gguf() -> None:
    """Raise if Transformers cannot read a GGUF model, or reads it wrongly.

    Before 5.18 it takes the start of text for its end, and no pad token; before 5.17, and under Python before 3.12, it
    does not find the version of the package gguf.

    Raises:
        ConfigError: Transformers is older than 5.18.
        MissingPackageError: gguf is not installed.
    """
    try:
        require_version("transformers>=5.18")
    except ImportError as error:
        raise ConfigError(
            f"a GGUF model needs Transformers 5.18 or newer, and this is {transformers.__version__}, which reads its "
            "special tokens wrongly: install a newer one, or give a directory or a hub id without a GGUF file."
        ) from error
    require("gguf")


def without_quantization(loaded: Any) -> Any:
    """A model whose weights came from a GGUF file, as an ordinary one.

    Trainer refuses a model whose config says that it is quantized, although GGUF weights are dequantized when they
    are loaded. So the weights move to a model whose config does not say so.
    """
    config = type(loaded.config).from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    model = type(loaded)._from_config(config, dtype=loaded.dtype)
    model.load_state_dict(loaded.state_dict())
    return model
