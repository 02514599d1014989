"""What lies beside an adapter or its base and belongs to the model: tokenizer, chat templates, processor, card."""

import shutil
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from transformers.utils import CHAT_TEMPLATE_DIR, CHAT_TEMPLATE_FILE, cached_file

from ..wording import first_line

CARD = "README.md"
PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)
"""Files of Transformers that say how a model reads images and audio."""

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "source.spm",
    "target.spm",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files of Transformers' tokenizers."""


def copy_beside(adapter: Path, directory: Path) -> None:
    """Copy what lies beside an adapter and belongs to it: its card, tokenizer, chat templates and processor.

    Args:
        adapter: Its directory.
        directory: Exists.
    """
    for name in (CARD, *TOKENIZERS, *PROCESSORS):
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, directory / name)
    _copy_templates(adapter, directory)


def save_beside(adapter: Path, base: str | None, revision: str, directory: Path) -> None:
    """Put tokenizer, chat templates and processor beside a whole model: the adapter's own, or else the base's.

    A tokenizer that cannot be read is warned of: that is no reason to lose the weights.

    Args:
        adapter: Directory of the adapter.
        base: Directory or hub id of its base.
        revision: Of the base on the hub.
        directory: Of the model.
    """
    places = [(str(adapter), "main"), *([(base, revision)] if base else [])]
    _save_tokenizer(places, directory)
    _copy_templates(adapter, directory)  # they may be the only part that the adapter has of its own
    for place, version in places:
        if found := _files(place, version, PROCESSORS):
            for path in found:
                shutil.copyfile(path, directory / path.name)
            return


def _copy_templates(adapter: Path, directory: Path) -> None:
    if (adapter / CHAT_TEMPLATE_FILE).is_file():
        shutil.copyfile(adapter / CHAT_TEMPLATE_FILE, directory / CHAT_TEMPLATE_FILE)
    if (adapter / CHAT_TEMPLATE_DIR).is_dir():
        shutil.copytree(adapter / CHAT_TEMPLATE_DIR, directory / CHAT_TEMPLATE_DIR, dirs_exist_ok=True)


def _save_tokenizer(places: Iterable[tuple[str, str]], directory: Path) -> None:
    from transformers import AutoTokenizer

    for place, version in places:
        if not _files(place, version, TOKENIZERS):  # some kinds would be made empty
            continue
        try:
            AutoTokenizer.from_pretrained(place, revision=version).save_pretrained(directory)
            return
        except Exception as error:
            message = f"the tokenizer in {place} cannot be read ({first_line(error)}), so the export is without it"
            warnings.warn(f"{message}: save it anew, and beside the export.", UserWarning, stacklevel=3)


def _files(place: str, revision: str, names: Iterable[str]) -> list[Path]:
    """Those of the files that a directory or a repository on the hub has."""
    found = []
    for name in names:
        with suppress(OSError):  # there is no such file
            found.append(Path(str(cached_file(place, name, revision=revision))))
    return found
