"""Pictures of a run, drawn from its directory alone, without the model. matplotlib loads when something is drawn."""

from ..drawing.picture import draw_selection

__all__ = ["draw_selection"]
