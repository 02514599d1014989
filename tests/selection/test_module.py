"""The gate is in a module's scaling once the choice is final."""

from dataclasses import replace

from weightlora.selection import Module

MODULE = Module("a.b", "module", kept=True, score=1.0, omega=0.5, rank=4, scaling=3.0, parameters=10)


def test_the_scaling_without_the_gate():
    assert MODULE.scaling_without_gate(final=True) == 6.0
    assert MODULE.scaling_without_gate(final=False) == 3.0
    assert replace(MODULE, omega=0.0, scaling=None).scaling_without_gate(final=True) is None
