"""Spam and ham: what is left of a mail, and the real mails."""

import re
import sys
from collections import Counter

import pytest
from benchmarks.workloads import emails

from weightlora.errors import DataError

HEADER = b"From: a@b.c\nSubject: Hello\nX-Spam: yes\nContent-Type: %s\n\n"
FIELD = re.compile(r"\b(received|return-path|delivered-to|message-id|mime-version|x-mailer|content-type):", re.I)


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        (b"text/plain", b"See http://x.y/z or\n write to me@x.y now", "See link or write to address now"),
        (b"text/plain", b"On Monday, a@b.c\nsaid:\n> Spam?\nNo.\n-- \nMe\n", "No."),
        (b"text/plain", b"Tom wrote:\n> Spam?\nSubject: Re: spam\nNo.\n" + b"_" * 30 + b"\nA list\n", "No."),
        (b"text/plain", b"<html><body>Buy<br>now</body></html>", "Buy now"),
        (b"text/html", b"<style>p {}</style><p>Caf&eacute; &amp; bar<!-- hidden --></p>", "Caf\u00e9 & bar"),
        (b"text/plain; charset=latin-1", b"caf\xe9", "caf\u00e9"),
        (b"text/plain; charset=nonsense", b"caf\xe9", "caf\u00e9"),
        (b"text/plain\nContent-Transfer-Encoding: quoted-printable", b"a=\nb =3D c", "ab = c"),
        (b"text/plain\nContent-Transfer-Encoding: base64", b"aGVsbG8=", "hello"),
        (b"image/png", b"aGVsbG8=", ""),
    ],
)
def test_the_body_of_a_mail(kind, content, text):
    assert emails.body_of(HEADER % kind + content) == text


def test_plain_text_comes_before_html():
    parts = b"--x\nContent-Type: text/html\n\n<p>one</p>\n--x\nContent-Type: text/plain\n\ntwo\n--x--\n"
    assert emails.body_of(HEADER % b'multipart/alternative; boundary="x"' + parts) == "two"


@pytest.mark.slow
def test_the_real_mails():
    splits = emails.load_splits()
    assert {name: len(rows) for name, rows in splits.items()} == emails.SPLIT_SIZES
    rows = [row for split in splits.values() for row in split]
    starts = {re.sub(r"[\W\d_]", "", row["text"].casefold())[:200] for row in rows}
    assert len(starts) == len(rows), "no two mails begin alike"
    for split in splits.values():
        counts = Counter(row["label"] for row in split)
        assert 0.2 < counts[1] / len(split) < 0.3 and set(counts) == {0, 1}
    assert not any(FIELD.search(row["text"]) for row in rows if row["label"] == 1)
    assert sum(bool(FIELD.search(row["text"])) for row in rows) < 20, "their subject, on one mailing list"
    assert not any(re.search(r"\S@\S|https?://\w", row["text"]) for row in rows)


def test_a_missing_archive_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(DataError, match=r"run make setup, or python -m benchmarks\.archives"):
        emails.load_splits()
