"""The laboratory of weightlora: experiments that compare methods, stored as data, and what their results say.

It imports the package and is not part of the wheel. Run it from the repository root: `python -m benchmarks --help`.
"""
