"""The support table of the docs is the one of the tests."""

import support


def test_the_page_lists_what_the_tests_run_over():
    text = support.PAGE.read_text(encoding="utf-8")
    assert support.render(text) == text, "run: python tests/support.py"
    assert "| Whisper |" in text and "| PiSSA | refused" in text
