"""Writes the list of recipes into docs/recipes.md: `python tests/recipe_list.py`."""

import re
from pathlib import Path

from pages import ROOT

from weightlora.train.arguments import parse
from weightlora.train.tasks import TASKS

PAGE = ROOT / "docs" / "recipes.md"
BEGIN, END = "<!-- recipes -->\n", "<!-- /recipes -->"


def recipe_paths() -> list[Path]:
    """Every recipe that can be run; `base.yaml` is a part of others, and `sweep.yaml` a grid of them."""
    return sorted(path for path in ROOT.glob("recipes/*/*.yaml") if path.stem not in {"base", "sweep"})


def list_recipes() -> str:
    """A table with a row a recipe, from what the files say."""
    lines = ["| recipe | model | data | reported |", "| --- | --- | --- | --- |"]
    for path in recipe_paths():
        recipe = parse(["--config", str(path), "--output_dir", "x"])
        task = TASKS[str(recipe.data.task)]
        data = " ".join(filter(None, (task.dataset, task.config)))
        if path.parent.name == "llama-glue":
            data = f"{task.dataset}, --task"
        reported = "by task" if path.parent.name == "llama-glue" else ", ".join(task.metrics)
        lines.append(f"| `{path.relative_to(ROOT)}` | {recipe.model.model} | {data} | {reported} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}{list_recipes()}{END}", text, flags=re.DOTALL), encoding="utf-8"
    )
