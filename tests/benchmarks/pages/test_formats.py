"""The example on the page has mixed ranks, so that each block shows what its tool cannot express."""

from benchmarks.pages import formats


def test_the_example():
    selection = formats.example()
    assert len(selection.modules) == 210 and selection.target_modules == list(formats.RANKS)
    assert selection.ranks == formats.RANKS and set(selection.scalings.values()) == {2.0}
