"""Exports of a finished adapter for servers, each checked before it is reported."""

from .exporting import PROFILES, Exported, export_adapter

__all__ = ["PROFILES", "Exported", "export_adapter"]
