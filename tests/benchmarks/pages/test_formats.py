"""The example on the page has mixed ranks, so that each block shows what its tool cannot express."""

from benchmarks.pages import formats

from weightlora.selection.formats import FORMATS


def test_the_example():
    selection = formats.example()
    assert len(selection.modules) == 210 and selection.target_modules == list(formats.RANKS)
    assert selection.ranks == formats.RANKS and set(selection.scalings.values()) == {2.0}


def test_there_is_a_block_for_each_format():
    assert {f"format-{name}" for name in FORMATS if name != "json"} == set(formats.TABLES)
    assert formats.TABLES["format-peft"]().startswith("```python\n# weightlora chose 4 of 210 modules")
    assert all(draw().endswith("\n```") for draw in formats.TABLES.values())
