"""`python -m benchmarks train` is `weightlora train` with more methods."""

from benchmarks.__main__ import main
from benchmarks.methods import peft

from weightlora.cli import train
from weightlora.train.methods import METHODS


def test_the_arguments_are_passed_on_with_every_method(monkeypatch):
    given = []
    monkeypatch.setattr(train, "run", lambda args, methods: given.append((args.rest, methods)) or 3)
    assert main(["train", "--method", "adalora", "--keep", "3"]) == 3
    [(arguments, methods)] = given
    assert arguments == ["--method", "adalora", "--keep", "3"]
    assert methods == METHODS | peft.METHODS and len(methods) == len(METHODS) + len(peft.METHODS)
