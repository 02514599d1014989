"""Spam and ham: the bodies of e-mails of 2002 and 2003, from SpamAssassin's public corpus.

Headers are left out, for they give the class away. So do addresses, links, quoted mails, signatures and the
footers of mailing lists, and the bodies are without these, too. Of mails that begin with the same 200 letters only the
first is used: spam comes in many copies.
"""

import email
import re
import tarfile
from collections.abc import Iterator
from email.message import Message
from html.parser import HTMLParser
from typing import Any

from weightlora.train.splitting import split

from ..archives import ARCHIVES, find_archive

CLASSES = ("ham", "spam")
SPLIT_SIZES = {"test": 1000, "validation": 500, "train": 3500}
LONGEST = 20_000
"""Bytes of a mail that are read: much more than the model reads."""

LOOKS_LIKE_HTML = re.compile(r"<(html|body|table|font|br|p|div|a)\b[^>]*>", re.IGNORECASE)
FOOTER = re.compile(r"^[ \t]*(?:_{20,}[ \t]*$|--[ \t]*$|-----BEGIN PGP SIGNATURE).*", re.MULTILINE | re.DOTALL)
QUOTE = re.compile(
    r"^(?:On .*\n?.*(?:wrote|said)|.*(?:wrote|writes)):[ \t]*$|^[ \t]*(?:>|\w{2,4}>|-----).*$", re.MULTILINE
)
FIELD = re.compile(
    r"^[|*) \t]*(?:hash|from|to|cc|bcc|sent|date|subject|reply-to|sender|url|received|return-path|delivered-to|"
    r"message-id|in-reply-to|references|list-[\w-]+|x-[\w-]+|content-[\w-]+|mime-version)[ \t]?:.*$",
    re.IGNORECASE | re.MULTILINE,
)
LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)


def load_splits() -> dict[str, list[dict[str, Any]]]:
    """The rows `{"text": str, "label": 0 or 1}` by split. `label` is the index in `CLASSES`.

    Raises:
        DataError: The archive is not there.
    """
    first: dict[str, dict[str, Any]] = {}
    for group, content in _mails():
        text = body_of(content)
        start = re.sub(r"[\W\d_]", "", text.casefold())[:200]
        if _is_english(text):
            first.setdefault(start, {"text": text, "label": int(group.startswith("spam"))})
    return split(first.values(), SPLIT_SIZES)


def _mails() -> Iterator[tuple[str, bytes]]:
    """Group and content of each mail, in the order of the archive."""
    with tarfile.open(find_archive(ARCHIVES["spam"].name)) as archive:
        for member in archive:
            parts = member.name.split("/")
            if parts[1] == "data" and parts[-1].endswith(".txt"):
                file = archive.extractfile(member)
                assert file is not None, f"{member.name} is a regular file"
                yield parts[2], file.read()


def body_of(content: bytes) -> str:
    """The text of a mail on one line, without anything that only mail programs and mailing lists write."""
    text = _text(email.message_from_bytes(content[:LONGEST]))
    if LOOKS_LIKE_HTML.search(text):
        text = text_of_html(text)
    text = FIELD.sub("", QUOTE.sub("", FOOTER.sub("", text.replace("\r", ""))))
    words = LINK.sub("link", text).split()
    return " ".join("address" if "@" in word[1:-1] else word for word in words)


def _text(message: Message) -> str:
    """The first plain text in a mail, or else its first HTML."""
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    for part in sorted(parts, key=lambda part: part.get_content_subtype() != "plain"):
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes), "a part of a text is not made of parts"
        try:
            return payload.decode(part.get_content_charset("utf-8"))
        except (LookupError, UnicodeDecodeError):  # an unknown charset, or a wrong one
            return payload.decode("latin-1")
    return ""


class _Words(HTMLParser):
    """Collects what a browser shows, with a space for each tag."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._hidden = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.words.append("\n" if tag in ("br", "p", "tr", "div") else " ")
        self._hidden = tag if tag in ("script", "style", "title") else ""

    def handle_endtag(self, tag: str) -> None:
        self._hidden = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def text_of_html(html: str) -> str:
    """The text that a browser would show."""
    parser = _Words()
    parser.feed(html)
    parser.close()
    return "".join(parser.words)


def _is_english(text: str) -> bool:
    """Whether there are a few words, and most of the characters are ASCII letters: there is also spam in Korean."""
    letters = sum(character.isascii() and character.isalpha() for character in text)
    return letters >= 20 and letters > len(text.replace(" ", "")) / 2
