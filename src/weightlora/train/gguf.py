"""Models whose weights are in a GGUF file."""

import transformers
from transformers.utils.versions import require_version

from ..errors import ConfigError
from ..extras import require


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
