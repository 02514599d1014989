"""What pictures show, for the tests of those that draw; and module names of two architectures to lay out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PNG = b"\x89PNG\r\n\x1a\n"
BERT_TYPES = ["attention.self.query", "attention.self.key", "attention.output.dense", "output.dense"]
BERT = [f"bert.encoder.layer.{layer}.{kind}" for layer in range(3) for kind in BERT_TYPES]
LLAMA_TYPES = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
LLAMA = [f"model.layers.{layer}.{kind}" for layer in range(30) for kind in LLAMA_TYPES]


@pytest.fixture
def figure_of(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Calls a drawing function and returns the figure that it would have written; to render it takes long."""
    from matplotlib.figure import Figure

    def call(draw: Callable[..., object], *arguments: object) -> Any:
        written: list[Figure] = []

        def savefig(figure: Figure, path: Path, **settings: object) -> None:
            written.append(figure)
            path.touch()

        with monkeypatch.context() as patch:
            patch.setattr(Figure, "savefig", savefig)
            draw(*arguments, tmp_path_factory.mktemp("figure") / "picture.png")
        [figure] = written
        return figure

    return call


def means(axes: Any) -> list[tuple[float, float, bool]]:
    """(row, loss, whether filled) of every diamond."""
    lines = [line for line in axes.lines if line.get_marker() == "D"]
    return sorted((line.get_ydata()[0], line.get_xdata()[0], line.get_markerfacecolor() != "white") for line in lines)


def texts(axes: Any) -> list[str]:
    return [text.get_text().strip() for text in axes.texts]


def labels(axes: Any) -> list[str]:
    """The names of the rows."""
    return [label.get_text() for label in axes.get_yticklabels()]


def squares(axes: Any) -> list[Any]:
    """The squares of a grid, in the order in which they were drawn."""
    from matplotlib.patches import Rectangle

    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]
