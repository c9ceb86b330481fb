"""The page of questions in a real Chromium, over a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import violations
from playwright.sync_api import Page, expect
from qa_model import PARAMS, make_boxes, make_reader
from served import served

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

if PARAMS:
    from src.predict.reader.manifest import read_reader_manifest, write_reader_manifest

TEXT = "box 82 : size size1 . colour colour2 . port port4 ."
QUESTION, NONE = "which port has box 82 ?", "which name has box 82 ?"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """The address of a server of a reader with documents and a file of feedback."""
    model = make_reader(home)
    write_reader_manifest(model, read_reader_manifest(model)._asdict() | {"threshold": 0.0})
    (home / "documents").mkdir()
    for article in make_boxes(4, 80)["data"]:
        text = article["paragraphs"][0]["context"]
        (home / "documents" / f"{article['title']}.txt").write_text(text)
    words = model, "--documents", home / "documents", "--feedback", home / "right.jsonl"
    more = "--passages", "1", "--engine", "onnxruntime", "--watch", "0"
    with served(home / "log.txt", *words, *more) as (url, _):
        yield url


@pytest.fixture
def page(blank: Page, server: str) -> Page:
    blank.set_viewport_size({"width": 1100, "height": 900})
    blank.goto(server)
    expect(blank.locator("#questions-title")).to_be_visible()
    expect(blank.locator("#place-about")).to_contain_text("4 documents of the server, 4 passages")
    return blank


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def test_documents_are_asked_and_the_answer_is_marked_where_it_stands(page: Page) -> None:
    nav = page.get_by_role("navigation", name="Pages")
    expect(nav.get_by_role("link").filter(visible=True)).to_have_text(["Questions", "Model"])
    ask(page, QUESTION)
    best = page.locator("#answers .answer").first
    expect(best.locator(".label bdi")).to_have_text("port4")
    expect(best.locator("mark")).to_have_text("port4")
    expect(best.locator(".marked")).to_have_text(TEXT)
    expect(best).to_contain_text("box 82.txt, paragraph 1")
    expect(best.locator(".sure")).to_contain_text("%")
    expect(page.locator("#question-status")).to_contain_text("Round trip: ")


def test_no_answer_is_shown_as_such_with_the_nearest_passage(page: Page) -> None:
    ask(page, NONE)
    expect(page.locator("#answers .label").first).to_have_text("No answer")
    expect(page.locator("#answers .marked")).to_have_text(TEXT)
    expect(page.locator("#answers mark")).to_have_count(0)


def test_a_text_of_ones_own_is_asked_and_a_file_is_dropped(page: Page, tmp_path: Path) -> None:
    page.locator("label", has_text="A text of mine").click()
    page.get_by_label("Text to look in").fill(TEXT.replace(":", "😀"))
    ask(page, QUESTION)
    expect(page.locator("#answers mark").first).to_have_text("port4")
    expect(page.locator("#answers .marked").first).to_have_text(TEXT.replace(":", "😀"))
    path = tmp_path / "mine.md"
    path.write_text(TEXT.replace("port4", "port2"))
    page.locator("#document").set_input_files(path)
    expect(page.get_by_label("Text to look in")).to_have_value(path.read_text())
    ask(page, QUESTION)
    expect(page.locator("#answers mark").first).to_have_text("port2")
    (tmp_path / "mine.pdf").write_bytes(b"%PDF")
    page.locator("#document").set_input_files(tmp_path / "mine.pdf")
    expect(page.locator("#question-status")).to_contain_text(
        "mine.pdf is neither text nor Markdown"
    )
    page.get_by_label("Text to look in").fill(" ")
    ask(page, QUESTION)
    expect(page.locator("#question-status")).to_have_text("Write or drop a text first.")
    ask(page, " ")
    expect(page.locator("#question-status")).to_have_text("Write a question first.")


def test_thumbs_are_written_down(page: Page, home: Path) -> None:
    ask(page, QUESTION)
    page.get_by_role("button", name="Right").first.click()
    expect(page.get_by_text("Thank you, it is written down.")).to_be_visible()
    row = json.loads((home / "right.jsonl").read_text().splitlines()[-1])
    assert row["answers"] == [{"text": "port4", "answer_start": TEXT.index("port4")}]
    assert (row["question"], row["context"], row["title"]) == (QUESTION, TEXT, "box 82.txt")
    ask(page, NONE)
    expect(page.locator("#answers .label").first).to_have_text("No answer")
    page.get_by_role("button", name="Wrong").click()
    expect(page.get_by_text("Thank you, it is written down.")).to_be_visible()
    row = json.loads((home / "right.down.jsonl").read_text().splitlines()[-1])
    assert (row["answers"], row["question"]) == ([], NONE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, page: Page) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    ask(page, QUESTION)
    page.locator("#answers mark").first.wait_for()
    page.get_by_role("button", name="Right").first.click()
    page.get_by_text("Thank you, it is written down.").wait_for()
    page.locator("label", has_text="A text of mine").click()
    assert violations(page) == ""
    page.get_by_label("Text to look in").fill(TEXT)
    ask(page, NONE)
    page.get_by_text("No answer", exact=True).wait_for()
    assert violations(page) == ""


def test_it_fits_on_a_phone_and_works_by_the_keyboard(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_label("Question").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator("#answers mark").first).to_have_text("port4")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
