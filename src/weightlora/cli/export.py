"""`weightlora export`: write a finished adapter so that servers scale it as PEFT does."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..wording import counted
from . import HelpFormatter, spellings

if TYPE_CHECKING:
    from ..export import Exported

DESCRIPTION = (
    "Writes a saved LoRA adapter in a layout that servers scale as PEFT does. The result is\n"
    "compared with the source before it is put in place. After an error, nothing is left behind."
)
PROFILES = """\
profiles:
  portable  one rank for all modules and scaling 1, which every server scales alike (the default)
  compact   the true ranks, for PEFT and vLLM: a smaller file
  merged    the adapter in the weights of the base: an ordinary Transformers model
  mlx       for mlx-lm's --adapter-path
  gguf      for llama.cpp's --lora

examples:
  weightlora export runs/first/adapter served
  weightlora export runs/first/adapter served --complete_fused --dtype bfloat16
  weightlora export out/adapter whole --profile merged --base HuggingFaceTB/SmolLM2-135M
  weightlora export out/adapter for-mac --profile mlx --json
  weightlora export out/adapter for-llama --profile gguf --base models/SmolLM2-135M

exit codes: 0 done; 1 an unexpected error; 2 something in the input is wrong (one sentence says what); 130 interrupted
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser."""
    parser = subparsers.add_parser(
        "export",
        help="write a finished adapter for a server, and check it",
        description=DESCRIPTION,
        epilog=PROFILES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("adapter_dir", type=Path, metavar="ADAPTER_DIR", help="a saved adapter, or a run directory that holds one")
    add("out_dir", type=Path, metavar="OUT_DIR", help="where to write the result")
    add("--profile", default="portable", help="portable, compact, merged, mlx or gguf")
    add("--base", metavar="DIR_OR_ID", help="the base model, if not the one that the adapter names")
    add(
        "--dtype",
        help="float32, float16 or bfloat16 (default: one that loses nothing; for merged, the dtype of the base)",
    )
    add(
        *spellings("complete_fused"),
        action="store_true",
        help="add zeros where only a part of q, k and v or of gate and up is adapted, which SGLang needs",
    )
    add(
        "--check",
        default="logits",
        help="logits also loads the base and compares outputs; tensors compares only the adapters",
    )
    add(
        *spellings("llama_cpp"),
        type=Path,
        metavar="DIR",
        help="directory of llama.cpp's sources, for architectures that only its converter writes",
    )
    add("--overwrite", action="store_true", help="replace an earlier export")
    add("--json", action="store_true", help="print one JSON object on stdout, everything else on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        WeightLoraError: The adapter, the base, the directory or a setting is wrong. Nothing is written then.
    """
    import json

    from ..export import export_adapter
    from .quiet import quiet_libraries

    with quiet_libraries():
        exported = export_adapter(
            args.adapter_dir,
            args.out_dir,
            args.profile,
            base=args.base,
            dtype=args.dtype,
            complete_fused=args.complete_fused,
            check=args.check,
            llama_cpp=args.llama_cpp,
            overwrite=args.overwrite,
        )
    if args.json:
        print(json.dumps(exported.to_dict(), allow_nan=False))
        print(f"in {exported.directory}", file=sys.stderr)
    else:
        _show(exported)
    return 0


def _show(exported: "Exported") -> None:
    """Print what was written: a table, or lines without rich."""
    from .train import print_lines

    try:
        from rich.console import Console
    except ModuleNotFoundError:
        print(*(f"{name}: {text}" for name, text in describe(exported).items()), f"in {exported.directory}", sep="\n")
        return
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)
    print_lines(console, describe(exported))
    console.print(f"in {exported.directory}", soft_wrap=True)


def describe(exported: "Exported") -> dict[str, str]:
    """What was written, how it was checked, and which servers read it: label -> text."""
    what = "the base with the adapter in its weights"
    if exported.adapters:
        what = f"{counted(exported.adapters, 'adapter')}, rank {exported.rank}"
        if exported.completed:
            what += f", {exported.completed} of them zeros that complete a group"
    lines = {"profile": f"{exported.profile}: {what}, {exported.dtype}"}
    if exported.difference is not None:
        lines["tensors"] = f"what each adapter adds differs from the source by {exported.difference:.0e} at most"
    if (close := exported.outputs) is not None:
        lines["outputs"] = (
            f"on random tokens, they differ from the source's by {close.difference:.0e}; the adapter itself changes "
            f"them by {close.effect:.2g}"
        )
    for verdict in exported.servers:
        note = f", with {verdict.note}" if verdict.note else ""
        why = f"{'not as PEFT does' if verdict.checked else 'not known'}: {verdict.note}"
        lines[verdict.server] = f"as PEFT does{note}" if verdict.alike else why
    return lines
