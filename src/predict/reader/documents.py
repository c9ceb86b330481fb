"""Documents of a team as paragraphs: text, Markdown, HTML and PDF.

Nothing in a document is run, and none names another file that would be read.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from src.core.errors import InputError, closest
from src.predict.foreign import refusing

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = (
    *("address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div"),
    *("dl", "dt", "fieldset", "figcaption", "figure", "form", "hr", "legend", "li", "main", "ol"),
    *("p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul", *HEADINGS),
)
UNREAD = ("script", "style", "noscript", "template", "title", "nav", "svg", "iframe", "button")
CHARSET = re.compile(rb"""<meta[^>]+charset=["']?([\w-]+)""", re.IGNORECASE)
FRONT_MATTER = re.compile(r"\A---\r?\n.*?^---\s*$", re.DOTALL | re.MULTILINE)
ENDS = re.compile(r"[.!?:;。！？…\"'”’)\]]\s*$")  # a paragraph that is whole
SENTENCE = re.compile(r"(?<=[.!?。！？])\s*(?=\S)")
HYPHEN = re.compile(r"(?<=[^\W\d_])-\n(?=[a-zà-ÿ])")
SPACES = re.compile(r"[^\S\n]+")


@dataclass(frozen=True)
class Passage:
    """A paragraph of a document.

    Attributes:
        text: without markup.
        place: where it stands, as a person would look for it.
    """

    text: str
    place: str


def is_document(name: str) -> bool:
    """Tell whether a name has the ending of a document."""
    return PurePosixPath(name.lower()).suffix in READERS


def passages(name: str, content: bytes) -> list[Passage]:
    """Return the paragraphs of a document, in their order.

    Args:
        name: that of its file, whose ending says what it is.
        content: its bytes.

    Raises:
        InputError: it is of another kind, can't be read, or has no text.
    """
    suffix = PurePosixPath(name.lower()).suffix
    if suffix not in READERS:
        raise InputError(
            f"{name} is no document that can be read: expected {', '.join(READERS)}"
            f"{closest(suffix, READERS)}."
        )
    found = [one for one in READERS[suffix](name, content) if one.text]
    if not found:
        raise InputError(
            f"{name} has no text: leave it out, or make text of it first if it holds pictures of "
            "pages."
        )
    return found


def pieces(passages: Sequence[Passage], size: int) -> list[Passage]:
    """Join short paragraphs and divide long ones, into pieces of about ``size`` characters.

    A piece is divided after a sentence, or else at a space.
    """
    made: list[Passage] = []
    texts: list[str] = []
    place = ""
    for passage in passages:
        for start, end in divided(passage.text, size):
            part = passage.text[start:end].strip()
            if texts and sum(map(len, texts)) + 2 * len(texts) + len(part) > size:
                made.append(Passage("\n\n".join(texts), place))
                texts = []
            place = place if texts else passage.place
            texts.append(part)
    return [*made, Passage("\n\n".join(texts), place)] if texts else made


def divided(text: str, size: int) -> list[tuple[int, int]]:
    """Divide a text into parts of at most ``size`` characters, which together are all of it.

    Returns:
        the first character of each part, and the one after its last.
    """
    ends: list[int] = [0]
    while len(text) - (start := ends[-1]) > size:
        near = text[start : start + size + 1]
        sentences = [one.start() for one in SENTENCE.finditer(near) if one.start() > size // 3]
        space = near.rfind(" ", 1)
        ends.append(start + (sentences[-1] if sentences else space if space > 0 else size))
    ends.append(len(text))
    return [(start, end) for start, end in pairwise(ends) if text[start:end].strip()]


def _decoded(name: str, content: bytes) -> str:
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeError as error:
        raise InputError(
            f"{name} is not UTF-8 (byte {getattr(error, 'start', 0)} can't be read): save it as "
            "UTF-8."
        ) from None


def _text(name: str, content: bytes) -> Iterator[Passage]:
    text = _decoded(name, content).replace("\r\n", "\n").replace("\r", "\n")
    found = _whole(re.split(r"\n[^\S\n]*\n\s*", text.replace("\f", "\n\n")))
    for number, paragraph in enumerate(found, 1):
        yield Passage(paragraph, f"paragraph {number}")


def _whole(paragraphs: Sequence[str]) -> list[str]:
    """Put together what a page or a line ended in the middle of a word or a sentence."""
    made: list[str] = []
    for raw in paragraphs:
        joined = HYPHEN.sub("", raw.strip())
        text = " ".join(SPACES.sub(" ", line).strip() for line in joined.splitlines()).strip()
        if made and text[:1].islower() and not ENDS.search(made[-1]):
            made[-1] = f"{made[-1]} {text}"
        elif text:
            made.append(text)
    return made


def _markdown(name: str, content: bytes) -> Iterator[Passage]:
    from markdown_it import MarkdownIt

    text = FRONT_MATTER.sub("", _decoded(name, content))
    with refusing(f"{name} can't be read as Markdown", "correct it, or leave it out"):
        html = MarkdownIt("commonmark").enable("table").render(text)
    yield from _html(name, html)


def _html(name: str, content: bytes | str) -> Iterator[Passage]:
    if isinstance(content, bytes):
        named = CHARSET.search(content[:4096])
        try:
            text = content.decode(named[1].decode()) if named else _decoded(name, content)
        except (UnicodeError, LookupError):
            text = _decoded(name, content)
    else:
        text = content
    reader = _Blocks()
    reader.feed(text)
    reader.close()
    reader.end_block()
    section, number = "", 0
    for block, is_heading in reader.found:
        if is_heading:
            section, number = block, 0
        else:
            number += 1
            place = f"paragraph {number}"
            yield Passage(block, f"{section}, {place}" if section else place)


class _Blocks(HTMLParser):
    """The text of each block of a page, and whether it is a heading."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, bool]] = []
        self._parts: list[str] = []
        self._heading = False
        self._unread: list[str] = []  # those that are open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in UNREAD:
            self._unread.append(tag)
        elif tag in BLOCKS:
            self.end_block()
            self._heading = tag in HEADINGS

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unread:
            del self._unread[self._unread.index(tag) :]
        elif tag in BLOCKS:
            self.end_block()
        elif tag in ("td", "th"):
            self._parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self._parts.append(data)

    def end_block(self) -> None:
        """Keep what was read since the last block, if that is any text."""
        if text := " ".join("".join(self._parts).split()):
            self.found.append((text, self._heading))
        self._parts, self._heading = [], False


def _pdf(name: str, content: bytes) -> Iterator[Passage]:
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it repairs is of no use to a user
    texts: list[tuple[int, str]] = []
    with refusing(f"{name} can't be read as PDF", "save it anew, or leave it out"):
        reader: Any = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError(f"{name} is locked by a password: save it without one.")
        for page, content_of in enumerate(reader.pages, 1):
            texts += [(page, part) for part in re.split(r"\n\s*\n", content_of.extract_text())]
    made: list[tuple[int, str]] = []
    for page, part in texts:
        for paragraph in _whole([part]):
            if made and paragraph[:1].islower() and not ENDS.search(made[-1][1]):
                made[-1] = (made[-1][0], f"{made[-1][1]} {paragraph}")
            else:
                made.append((page, paragraph))
    for page, paragraph in made:
        yield Passage(paragraph, f"page {page}")


READERS = {
    ".txt": _text,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
