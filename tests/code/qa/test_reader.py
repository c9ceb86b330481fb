"""What a reader is given, and what is made of what it says."""

import zlib
from typing import Any

import numpy as np
import pytest
from qa_model import PARAMS, make_encoder
from tokenizers import Tokenizer

from src.core.errors import InputError

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

if PARAMS:
    from src.predict.reader import documents
    from src.predict.reader.documents import Passage, divided, passages, pieces
    from src.predict.reader.index import Index, terms, words
    from src.predict.reader.spans import Span, apart, best
    from src.predict.reader.windows import Pairs, Text, Window


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_encoder(tmp_path_factory.mktemp("encoder") / "made")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_a_pair_that_fits_has_the_tokens_that_the_tokenizer_gives_it(tokenizer: Any) -> None:
    pairs = Pairs(tokenizer, 64, 8, 16)
    asked, told = "Which port does the server listen on?", "The server listens on port 8000."
    (question, paragraph) = pairs.texts([asked, told])
    (window,) = pairs.windows(question, paragraph)
    whole = tokenizer.encode(asked, told)
    assert (window.ids.tolist(), window.types.tolist()) == (whole.ids, whole.type_ids)
    assert window.length == len(paragraph.ids)
    assert window.ids[window.at : window.at + window.length].tolist() == paragraph.ids.tolist()
    assert [told[a:b] for a, b in paragraph.offsets.tolist()][-3:] == ["port", "8000", "."]


def test_windows_of_a_long_paragraph_overlap_and_leave_nothing_out(tokenizer: Any) -> None:
    pairs = Pairs(tokenizer, 32, 8, 10)
    question, paragraph = pairs.texts(["what is it", " ".join(f"v{k % 20}" for k in range(100))])
    windows = pairs.windows(question, paragraph)
    assert len(windows) > 3
    assert all(len(one.ids) <= 32 for one in windows)
    assert [one.first for one in windows][:3] == [0, 18, 36]
    assert windows[0].length - windows[1].first == 8
    covered = {k for one in windows for k in range(one.first, one.first + one.length)}
    assert covered == set(range(100))
    empty = pairs.texts([""])[0]
    assert [one.length for one in pairs.windows(question, empty)] == [0]


def test_a_question_of_any_length_leaves_room_for_the_paragraph(tokenizer: Any) -> None:
    pairs = Pairs(tokenizer, 32, 8, 10)
    question, paragraph = pairs.texts(["port " * 500, "the name is here " * 10])
    assert pairs.is_cut(question)
    assert not pairs.is_cut(paragraph._replace(ids=paragraph.ids[:10]))
    windows = pairs.windows(question, paragraph)
    assert all(one.at == 12 and len(one.ids) <= 32 for one in windows)
    with pytest.raises(InputError, match="have no room for 30 of a question and more than the 8"):
        Pairs(tokenizer, 32, 8, 30)


def window_of(text: str, first: int = 0) -> tuple[Text, Window]:
    """A text of words, each a token, behind one special token and before another."""
    ends = np.cumsum([len(word) + 1 for word in text.split(" ")])
    starts = ends - [len(word) + 1 for word in text.split(" ")]
    offsets = np.stack([starts, ends - 1], axis=1).astype(np.int32)
    count = len(offsets)
    ids = np.arange(count + 2, dtype=np.int32)
    return Text(ids[1:-1], offsets), Window(ids, np.zeros_like(ids), 1, first, count)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_span_is_the_one_that_trying_all_finds(seed: int) -> None:
    text = " ".join("abcdefghijklm")
    tokens, window = window_of(text)
    logits = np.random.default_rng(seed).normal(size=(len(window.ids), 2)).astype(np.float32)
    (found,) = best(text, tokens, [(window, logits)], 4, 1)
    every = {
        (i, j): float(logits[1 + i, 0]) + float(logits[1 + j, 1])
        for i in range(13)
        for j in range(i, min(13, i + 4))
    }
    first, last = max(every, key=every.__getitem__)
    assert (found.start, found.end) == (2 * first, 2 * last + 1)
    assert found.logit == pytest.approx(every[first, last])
    assert found.null == pytest.approx(float(logits[0].sum()))
    assert found.score == pytest.approx(found.logit - found.null)
    inside = np.concatenate([logits[:1], logits[1:14]])
    shares = np.exp(inside) / np.exp(inside).sum(axis=0)
    assert np.exp(found.log_probability) == pytest.approx(
        float(shares[1 + first, 0] * shares[1 + last, 1]), rel=1e-5
    )


def test_several_spans_do_not_overlap_and_are_of_all_windows() -> None:
    text = "one two three four five six"
    tokens, whole = window_of(text)
    logits = np.full((8, 2), -5.0, np.float32)
    logits[1, 0], logits[2, 1], logits[5, :] = 4, 4, 2
    windows = [
        (whole._replace(ids=whole.ids[:5], length=3), logits[:5]),
        (whole._replace(ids=whole.ids[3:], first=3, length=3), logits[[0, 4, 5, 6, 7]]),
    ]
    found = best(text, tokens, windows, 3, 3)
    assert [text[one.start : one.end] for one in found][:2] == ["one two", "five"]
    assert all(a.end <= b.start or b.end <= a.start for a in found for b in found if a != b)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    spans = [Span(0, 5, 3.0, 0.0, 0.0), Span(4, 8, 4.0, 0.0, 0.0), Span(9, 12, 1.0, 0.5, 0.0)]
    assert apart(spans, 2) == [spans[1], spans[2]]


def test_a_span_has_no_space_at_its_ends() -> None:
    text = "it is  here now"
    offsets = np.array([[0, 2], [2, 6], [6, 11], [11, 15]], np.int32)  # as some tokenizers give
    window = Window(np.arange(6, dtype=np.int32), np.zeros(6, np.int32), 1, 0, 4)
    logits = np.zeros((6, 2), np.float32)
    logits[3] = 9
    (found,) = best(text, Text(window.ids[1:-1], offsets), [(window, logits)], 2, 1)
    assert text[found.start : found.end] == "here"


def test_paragraphs_are_found_by_their_words() -> None:
    index = Index(["The cat sat.", "A dog ran in the café.", "黑豹队的防守丢了多少分", "A dog."])
    assert index.best("Which CAFE?", 1).tolist() == [1]
    assert index.best("dog", 2).tolist() == [3, 1], "the shorter one is more about it"
    assert index.best("防守如何", 1).tolist() == [2]
    assert index.best("unheard of", 2).tolist() == [0, 1]
    assert Index([]).best("cat", 3).tolist() == []
    assert Index(["", "!"]).best("cat", 3).tolist() == [0, 1]
    assert words("Ünïcode 北京市 x") == ["unicode", "北京", "京市", "x"]
    assert terms("Ünïcode north") == ["unicode", "north", "unic-", "nort-"]


def test_documents_of_each_kind_become_paragraphs() -> None:
    text = b"\xef\xbb\xbfThe first para-\ngraph goes\n\non here. Done.\r\n\r\n\r\nThe second.\n"
    assert passages("a.txt", text) == [
        Passage("The first paragraph goes on here. Done.", "paragraph 1"),
        Passage("The second.", "paragraph 2"),
    ]
    page = (
        "<html><head><title>No</title><style>p {}</style></head><body><nav>No</nav><h1>Fees &amp; "
        "more</h1><p>Two <b>eur</b>os<br>each</p><script>no()</script><!-- no --><table><tr><td>1"
        "</td><td>2</td></tr></table>end</body></html>"
    )
    found = passages("a.html", page.encode())
    assert [one.text for one in found] == ["Two euros", "each", "1 2", "end"]
    assert found[0].place == "Fees & more, paragraph 1"
    latin = '<meta charset="iso-8859-1"><p>caf\u00e9</p>'.encode("latin-1")
    assert passages("A.HTM", latin)[0].text == "caf\u00e9"
    marked = (
        b"---\ntitle: x\n---\n# Fees\n\nTwo *euros*\neach.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    found = passages("a.md", marked)
    assert [one.text for one in found] == ["Two euros each.", "a b", "1 2"]
    assert found[0].place == "Fees, paragraph 1"
    assert passages("a.pdf", pdf("Two euros each.")) == [Passage("Two euros each.", "page 1")]
    assert documents.is_document("x/A.PDF")
    assert not documents.is_document("a.docx")


def pdf(text: str) -> bytes:
    """A file of one page in the simplest form."""
    drawn = zlib.compress(f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode())
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(drawn), drawn),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    made, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj" % number + content + b"endobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(made)
    made += b"xref\n0 6\n0000000000 65535 f \n" + table
    return made + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.docx", b"PK", "a.docx is no document that can be read: expected .txt, .md, .*pdf"),
        ("a.txt", b"caf\xe9 au lait", "a.txt is not UTF-8 .byte 3 .*: save it as UTF-8"),
        ("a.txt", b" \n\t\n", "a.txt has no text: leave it out"),
        ("a.html", b"<div>" * 50_000, "a.html has no text"),
        ("a.html", b"<script>" * 3, "a.html has no text"),
        ("a.pdf", b"not at all", "a.pdf can't be read as PDF .*: save it anew, or leave it out"),
        ("a.pdf", pdf("")[:300], "a.pdf can't be read as PDF|a.pdf has no text"),
        ("a.pdf", pdf(""), "a.pdf has no text"),
    ],
)
def test_a_document_that_can_not_be_read_is_told_in_a_sentence(
    name: str, content: bytes, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        passages(name, content)


def test_deep_markup_takes_no_more_than_its_size() -> None:
    deep = b"<div>a" * 20_000
    assert len(passages("a.html", deep)) == 20_000
    assert passages("a.md", b">" * 10 + b" a") == [Passage("a", "paragraph 1")]
    with pytest.raises(InputError, match=r"a\.md has no text"):
        passages("a.md", b">" * 20_000 + b" a")


def test_pieces_are_of_about_one_size_and_hold_everything() -> None:
    long = "A sentence of some words. " * 40
    made = pieces([Passage("Short.", "p 1"), Passage("Also.", "p 2"), Passage(long, "p 3")], 200)
    assert made[0].text.startswith("Short.\n\nAlso.\n\nA sentence")
    assert [one.place for one in made[:2]] == ["p 1", "p 3"]
    assert all(len(one.text) <= 200 for one in made)
    assert all(one.text.endswith(".") for one in made)
    assert "".join("".join(one.text.split()) for one in made) == "".join(
        ("Short.Also." + long).split()
    )
    assert divided("x" * 25, 10) == [(0, 10), (10, 20), (20, 25)]
    assert divided("", 10) == []
