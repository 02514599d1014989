"""`weightlora bench` and `weightlora study`: old commands, which name the commands that replace them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError

# Old option of `bench run --data` -> (arguments of `weightlora train`, its default).
OPTIONS: dict[str, tuple[tuple[str, ...], Any]] = {
    "--steps": (("--max_steps",), 300),
    "--batch-size": (("--per_device_train_batch_size",), 16),
    "--max-length": (("--max_length",), 128),
    "--learning-rate": (("--learning_rates",), "1e-3"),
    "--rank": (("--rank",), 8),
    "--keep": (("--keep",), 0.25),
    "--methods": (("--methods",), "lora,random,weightlora"),
    "--seeds": (("--seeds",), 3),
    "--jobs": (("--jobs",), None),
}
ROOT = Path("runs/bench")
STUDIES = ("alignment", "memory")


def add_parser(subparsers: Any) -> None:
    """Add both commands to the `weightlora` parser."""
    for name in ("bench", "study"):
        parser = subparsers.add_parser(name, add_help=False)  # without a help text, it is not listed
        parser.set_defaults(run=run, takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Forward `bench run --data` to `weightlora compare`; returns its exit code.

    Raises:
        ConfigError: For every other spelling. The message names the command that replaces it.
    """
    command, given = args.command, list(args.rest)
    if (
        command == "bench"
        and given[:1] == ["run"]
        and any(word.split("=")[0] in ("--data", "--model") for word in given)
    ):
        arguments = translate(given[1:])
        line = " ".join(["weightlora compare", *arguments])
        print(f"weightlora bench run is now `weightlora compare`; this runs `{line}`.", file=sys.stderr)
        return _compare(arguments)
    raise ConfigError(_moved(command, given))


def translate(arguments: Sequence[str]) -> list[str]:
    """The arguments of `weightlora compare` for those of the old `weightlora bench run --model --data`.

    Raises:
        ConfigError: If one of the two is missing, or an argument is unknown.
    """
    parser = _Parser(prog="weightlora bench run", add_help=False, allow_abbrev=False)
    for name in ("--model", "--data", "--text-column", "--label-column"):
        parser.add_argument(name)
    parser.add_argument("--root", type=Path, default=ROOT)
    for name, (_, default) in OPTIONS.items():
        parser.add_argument(name, default=default)
    old = vars(parser.parse_args(list(arguments)))
    for name, other in (("model", "data"), ("data", "model")):
        if old[name] is None:
            raise ConfigError(f"--{other} is given without --{name}: a comparison on your own data needs both.")
    new = ["--model", old["model"], "--train_file", old["data"], "--task", "text-classification"]
    columns = {"text": old["text_column"] or "text", "label": old["label_column"] or "label"}
    if columns != {"text": "text", "label": "label"}:
        new += ["--columns", "{" + ", ".join(f'"{name}": "{column}"' for name, column in columns.items()) + "}"]
    for name, (names, _) in OPTIONS.items():
        if (value := old[name.lstrip("-").replace("-", "_")]) is not None:
            new += [names[0], str(value)]
    steps, rank = _number("--steps", old["steps"]), _number("--rank", old["rank"])
    new += ["--alpha", str(4 * rank), "--select_steps", str(max(2, steps // 5)), "--warmup_steps", str(steps // 16)]
    if not (name := Path(old["data"]).stem.lstrip(".")):
        raise ConfigError(f"--data {old['data']} has no name before its ending: rename the file.")
    return [*new, "--output_dir", str(old["root"] / name)]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"weightlora bench run is now `weightlora compare`: {message}.")


def _number(name: str, text: Any) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} {text} is not a whole number: give one such as 8.") from None


def _compare(arguments: Sequence[str]) -> int:
    from . import build_parser, compare

    parser = build_parser((compare,))
    args, rest = parser.parse_known_args(["compare", *arguments])
    args.rest = rest
    code: int = args.run(args)
    return code


def _moved(command: str, given: Sequence[str]) -> str:
    what = " ".join(["weightlora", command, *given[:1]])
    if command == "bench":
        to = given[0] if given[:1] and given[0] in ("run", "tune", "summarize") else "run"
    else:
        to = given[0] if given[:1] and given[0] in STUDIES else "--help"
    return (
        f"`{what}` has moved: the repository's own experiments are `python -m benchmarks {to}`, from the root of a "
        "clone, and a comparison on your own data is `weightlora compare`."
    )
