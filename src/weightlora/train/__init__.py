"""One training run: any model, any data set, any method, and a run directory with the result.

```python
from weightlora.train import fit, parse, prepare

result = fit(prepare(parse(["--task", "sst2", "--model", "roberta-base", "--output_dir", "out"])))
print(result.value)
```

`parse` reads recipe files and arguments. `prepare` checks everything that can be checked without the model's weights,
and plans. `fit` trains with `transformers.Trainer`, evaluates, and writes the run directory.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..extras import explain_missing

if TYPE_CHECKING:
    from .arguments import parse
    from .fitting import fit
    from .plan import prepare
    from .result import Result

__all__ = ["Result", "fit", "parse", "prepare"]

# Loaded when asked for: reading a result needs neither transformers.Trainer nor datasets.
_LAZY = {"Result": "result", "fit": "fitting", "parse": "arguments", "prepare": "plan"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        with explain_missing():
            return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
