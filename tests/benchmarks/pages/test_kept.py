"""What update credit kept, by module type and third of the depth."""

from benchmarks.pages.kept import render_kept_markdown
from benchmarks.pages.side import write_pages
from stored import result, store


def test_what_was_kept_is_told_by_type_and_third(tmp_path):
    names = [f"h.{layer}.{kind}" for layer in range(6) for kind in ("q", "v")] + ["pooler"]
    for seed, kept in enumerate((["h.0.v", "h.5.q"], ["h.0.v", "h.1.v"])):
        store(tmp_path, result("weightlora", seed, kept=kept, names=names))
    store(tmp_path, result("random", kept=names[:2], names=names))
    write_pages(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "kept.md").read_text()
    assert "## tiny: 2 of 13, 2 seeds" in text and "(mean Jaccard): 0.33" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows[1:] == [
        "| v | 25% | 75% | 0% | 0% |",
        "| q | 8% | 0% | 0% | 25% |",
        "| pooler | 0% |  |  |  |",
    ], "the pooler is in no third"
    assert (tmp_path / "out" / "tiny-kept.png").read_bytes().startswith(b"\x89PNG")
    assert render_kept_markdown([]) == ""
