"""Names as Python, YAML and regular expressions write them, and the comments above a snippet."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ...mlx_names import TEXT_PARTS, reads_more_than_text
from ...run import ALSO, TOKENS
from ...wording import counted, printable

PLAIN = re.compile(r"[A-Za-z_]\w*(\.\w+)+", re.ASCII)
"""A name that YAML reads as text without quotes: with a dot, and a letter or an underscore before it."""

SHOWN = 3

SAME = {"use_dora": "use_dora", "lora_dropout": "lora_dropout"}
"""Other settings, which most tools have under PEFT's names."""

NOTHING = "(?!)"
"""A regular expression that matches no name."""

IMPOSSIBLE = "So it cannot express this choice: use another tool."


def quoted(text: str) -> str:
    """A text in double quotes, with the escapes that Python and YAML share."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return printable(character)


def yaml_text(text: str) -> str:
    """A text as YAML has it, with quotes where they are needed."""
    return text if PLAIN.fullmatch(text) else quoted(text)


def yaml_list(texts: Iterable[str], indent: str = "  ") -> list[str]:
    """The lines of a list of texts."""
    return [f"{indent}- {yaml_text(text)}" for text in texts]


def python_value(value: Any) -> str:
    """A value as Python code, for an argument on a line of its own: lists and dicts have one entry in each line."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict) and value:
        entries = "".join(f"        {quoted(key)}: {entry},\n" for key, entry in value.items())
        return f"{{\n{entries}    }}"
    if isinstance(value, list) and value:
        return "[\n" + "".join(f"        {python_value(entry)},\n" for entry in value) + "    ]"
    return repr(value)


def alternatives(names: Sequence[str]) -> str:
    """A regular expression that matches these names and nothing else, in one line."""
    escaped = ["".join(_in_pattern(character) for character in name) for name in names]
    return escaped[0] if len(escaped) == 1 else f"(?:{'|'.join(escaped)})"


def _in_pattern(character: str) -> str:
    return re.escape(character) if character.isprintable() else _escaped(character)


def comments(*texts: str | None) -> list[str]:
    """Each text as a line of a comment; None is left out."""
    return [f"# {text}" for text in texts if text is not None]


def also(selection: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Other settings of that run, as a tool has them.

    Args:
        selection: The choice.
        names: PEFT's name of a setting -> the tool's.
    """
    return {theirs: selection.lora[name] for name, theirs in names.items() if name in selection.lora}


def heading(selection: Any, *notes: str | None, sets: Collection[str] = ()) -> list[str]:
    """The comments above a snippet: how many modules of which model were chosen, by which rule, and notes.

    Args:
        selection: The choice.
        notes: More of them; None is left out.
        sets: PEFT's names of other settings that the snippet below has.
    """
    model = "" if selection.model is None else f" of {quoted(selection.model)}"
    count = f"{len(selection.kept)} of {len(selection.modules)} modules"
    rule = selection.rule if selection.rule.isidentifier() else quoted(selection.rule)
    chose = f"weightlora chose {count}{model} (rule {rule})."
    tokens = None if TOKENS in sets else _tokens_note(selection)
    about = (_gates_note(selection), _settings_note(selection, sets), tokens)
    return comments(chose, *about, _part_note(selection), *notes)


def _gates_note(selection: Any) -> str | None:
    """That that run had gates, which no snippet has; None if it had none."""
    if any(module.omega != 1 for module in selection.kept):
        return "That run scaled each module by a gate, too. A new training begins without gates."
    return None


def _settings_note(selection: Any, sets: Collection[str]) -> str | None:
    """Other settings of that run which the snippet below does not say; None if there were none."""
    found = {name: selection.lora[name] for name in ALSO if name in selection.lora and name not in sets}
    told = ", ".join(f"{name}={json.dumps(value)}" for name, value in found.items())
    return f"That run had {told}, which is not set below. Set it in your training, too." if told else None


def _tokens_note(selection: Any) -> str | None:
    """Which rows of embeddings that run trained, which the snippet below does not say; None if there were none."""
    tokens = selection.trainable_token_indices
    setting = f"trainable_token_indices={json.dumps(tokens)}"
    return (
        f"That run trained rows of an embedding, too: {setting}. Train them in your training, too." if tokens else None
    )


def _part_note(selection: Any) -> str | None:
    """That the names are those of a language model that was loaded alone; None if it was the whole model."""
    if selection.model_type not in TEXT_PARTS or reads_more_than_text(module.name for module in selection.modules):
        return None
    return (
        "That run had the language model of a larger model alone. TRL's command line, LLaMA-Factory and ms-swift "
        "load all of it: write model.language_model. for model. there."
    )


def saved_note(selection: Any, tool: str) -> str | None:
    """That a tool cannot train in full what the run did; None if the run trained nothing in full."""
    saved = selection.modules_to_save
    return f"That run trained {names_in(saved)} in full, and {tool} has no setting for it." if saved else None


def names_in(names: Sequence[str]) -> str:
    """The first names in a comment, which stays in its line whatever they hold."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(yaml_text, names[:SHOWN])) + more


def how_many(values: Iterable[Any]) -> str:
    """`"8 (3 modules), 4 (1 module)"`, the most frequent first."""
    counts = Counter(values).most_common()
    return ", ".join(f"{value} ({counted(count, 'module')})" for value, count in counts)
