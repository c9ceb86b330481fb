"""The playground in a real Chromium, over real servers."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import ROOT, make_model, violations
from playwright.sync_api import Browser, Page, expect

from src.predict.manifest import list_too

GOAL = "🥅 The striker scored a late goal and the coach was proud of the match"
BANK = "The bank sold its shares at a profit"
HASH = "0123456789abcdef" * 4
UNSURE = "goal profit director"  # a word of each topic
HOSTILE = "<img src=x onerror=alert(1)> match"
CARD = f"""---
model-index:
- name: Topics
  results:
  - dataset: {{name: topics.csv, type: text, split: test}}
    metrics:
    - {{type: accuracy, value: 0.975, name: Accuracy}}
    - {{type: log_loss, value: 0.25, name: Log loss}}
---

# Topics of news

## The data

| label | test |
| --- | --- |
| `film` | 1,020 |

- Texts that are **nearly** the same: 3.

## Results

Test texts by their label, in rows, and the label it gave:

| label | `film` | `sport` |
| --- | --- | --- |
| `film` | 1,019 | 1 |
| `sport` | 0 | 980 |

## Files

| file | bytes | sha256 |
| --- | --- | --- |
| model.onnx | 1,234 | `{HASH}` |

## Limits

{HOSTILE} [a site](https://example.org/) [a trap](javascript:alert(1))

```python
print("<b>")
```
"""
LIMITS = "--deadline 20 --max_items 2 --max_characters 2000 --max_words 8 --max_rows 20 --watch 0"
TIME = r"(\d+ ms|\d+\.\d s)"


@contextmanager
def serving(log: Path, *words: str | Path, **environment: str) -> Iterator[str]:
    """Run the server on a free port of loopback, and give its address."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "src.serve", *map(str, words), "--port", "0"],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stderr
    try:
        told = ""
        while not (address := re.search(r"at (http://\S+)\n", told)):
            line = process.stderr.readline()
            assert line, f"the server ended: {told}"
            told += line
        yield address[1]
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two models of other forests, the first with a card."""
    place = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        (place / name).mkdir()
        make_model(place / name, seed)
    (place / "first" / "README.md").write_text(CARD)
    list_too(place / "first", "README.md")
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with serving(folder / "log", folder / "first", folder / "second", *LIMITS.split()) as address:
        yield address


@pytest.fixture
def page(blank: Page, server: str) -> Page:
    visit(blank, server)
    return blank


def visit(page: Page, address: str, place: str = "#/texts") -> None:
    page.goto(f"{address}/{place}")
    expect(page.locator("#text-models input")).to_have_count(3)


def choose(page: Page, name: str, place: str = "#text-models") -> None:
    page.locator(place).get_by_label(name, exact=True).check(force=True)


def classify(page: Page, *texts: str) -> None:
    page.get_by_label("Text", exact=True).fill("\n".join(texts))
    page.get_by_role("button", name="Classify").click()


def predicted(server: str, text: str, model: str) -> list[dict[str, Any]]:
    body = {"inputs": text, "model": model}
    answer: list[dict[str, Any]] = requests.post(f"{server}/predict", json=body, timeout=10).json()
    return answer


def percent(share: float) -> str:
    if 0.0005 <= share <= 0.9995:
        return f"{share:.1%}"
    return "<0.1%" if share < 0.5 else ">99.9%"


def test_each_line_gets_its_label_and_its_bars(page: Page, server: str) -> None:
    classify(page, GOAL, "", BANK, HOSTILE)  # more than the server takes at once
    answers = page.locator(".answer")
    expect(answers).to_have_count(3)
    expect(page.get_by_role("status").first).to_have_text(
        re.compile(rf"^3 texts; round trip: first {TIME}\.$")
    )
    for text, answer in zip((GOAL, BANK, HOSTILE), answers.all(), strict=True):
        scores = predicted(server, text, "first")
        expect(answer.locator(".said")).to_have_text(text)
        expect(answer.locator(".label")).to_have_text(
            f"{scores[0]['label']} {percent(scores[0]['score'])}"
        )
        expect(answer.locator(".bar-label")).to_have_text([one["label"] for one in scores])
        widths = answer.locator(".bars li").evaluate_all(
            "rows => rows.map((row) => row.querySelector('.fill').getBoundingClientRect().width"
            " / row.querySelector('.track').getBoundingClientRect().width)"
        )
        assert widths == pytest.approx([one["score"] for one in scores], abs=0.05)
    page.get_by_label("Each line is a text of its own").uncheck()
    classify(page, GOAL, BANK)
    expect(answers).to_have_count(1)
    expect(answers.locator(".said")).to_have_text(f"{GOAL}\n{BANK}", use_inner_text=True)


def test_models_are_switched_and_stand_side_by_side(page: Page, server: str) -> None:
    text = "goal bank actor match loan cinema"  # of each topic the same
    classify(page, text)
    told = [predicted(server, text, model)[0] for model in ("first", "second")]
    labels = [f"{one['label']} {percent(one['score'])}" for one in told]
    assert labels[0] != labels[1]
    shown = page.locator(".label")
    expect(shown).to_have_text(labels[:1])
    choose(page, "second")  # which asks anew
    expect(shown).to_have_text(labels[1:])
    choose(page, "Side by side")
    expect(shown).to_have_text(labels)
    expect(page.locator(".of-model")).to_have_text(["first", "second"])
    agreed = int(told[0]["label"] == told[1]["label"])
    expect(page.locator("#status")).to_contain_text(f"The models agree on {agreed} of 1.")
    expect(page.locator(".badge")).to_have_count(1 - agreed)


def test_the_words_that_mattered_are_marked_where_they_stand(page: Page, server: str) -> None:
    classify(page, GOAL)
    button = page.get_by_role("button", name="Which words mattered?")
    button.click()
    expect(button).to_have_attribute("aria-expanded", "true")
    found = requests.post(f"{server}/explain", json={"inputs": GOAL}, timeout=10).json()
    words = [word for word in found["words"] if abs(word["change"]) >= 0.001]
    assert words  # after a character that is two units of UTF-16
    marks = page.locator(".marked mark")
    expect(marks).to_have_text([word["word"] for word in words])
    sides = ["for" if word["change"] < 0 else "against" for word in words]
    expect(marks).to_have_class(sides)
    expect(page.locator(".marked")).to_have_text(GOAL)
    strongest = max(words, key=lambda word: abs(word["change"]))
    row = page.locator(".words tbody tr").first
    points = f"{-100 * strongest['change']:.1f}".replace("-", "\u2212")
    expect(row.locator("th")).to_have_text(strongest["word"])
    expect(row.locator("td").nth(1)).to_have_text(points)
    left = found["words_left"]
    assert left > 0
    expect(page.locator(".cut")).to_contain_text(f"{left} more words were not")
    button.click()
    expect(page.locator(".marked")).to_have_count(0)


def test_what_a_model_does_not_read_is_said(page: Page) -> None:
    classify(page, GOAL, "goal " * 150)
    verdicts = page.locator(".verdict")
    expect(verdicts).to_have_count(2)
    expect(verdicts.nth(0).locator(".cut")).to_have_count(0)
    expect(verdicts.nth(1).locator(".cut")).to_have_text(
        "Only the start was read: at most 100 tokens and 1,000 characters."
    )


def write(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_file_comes_back_scored(page: Page, server: str, tmp_path: Path) -> None:
    rows = [["id", "body, as it is", "label"], ["1", f'{GOAL}\n"late"', "x"], ["2", BANK, "y"]]
    file = write(tmp_path / "news.csv", rows)
    page.get_by_role("link", name="File").click()
    page.get_by_label("CSV file").set_input_files(file)
    expect(page.locator("#csv-about")).to_contain_text("predicted_label and predicted_score")
    page.get_by_label("Column of the texts").select_option("body, as it is")
    choose(page, "second", "#file-models")
    page.get_by_role("button", name="Score").click()
    expect(page.locator("#file-status")).to_have_text(re.compile(rf"^2 rows scored in {TIME}\.$"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "news-scored.csv"
    with download.value.path().open(newline="", encoding="utf-8") as scored:
        found = list(csv.reader(scored))
    assert found[0] == [*rows[0], "predicted_label", "predicted_score"]
    for row, before in zip(found[1:], rows[1:], strict=True):
        best = predicted(server, before[1], "second")[0]
        assert row[:-1] == [*before, best["label"]]
        assert float(row[-1]) == pytest.approx(best["score"])
    expect(page.locator("#scored tbody tr")).to_have_count(2)


def test_the_column_of_the_longest_texts_is_chosen(page: Page, tmp_path: Path) -> None:
    """Where none has a usual name."""
    page.get_by_role("link", name="File").click()
    rows = [["Nr", "Nachricht", "Sprache"], ["20117", GOAL, "en"]]
    page.get_by_label("CSV file").set_input_files(write(tmp_path / "a.csv", rows))
    expect(page.locator("#column")).to_have_value("Nachricht")
    page.get_by_label("CSV file").set_input_files(
        write(tmp_path / "b.csv", [["body", "comment"], ["a", GOAL]])
    )
    expect(page.locator("#column")).to_have_value("body")


def test_the_answer_of_an_older_file_is_dropped(page: Page, tmp_path: Path) -> None:
    def send(rows: int) -> None:
        file = write(tmp_path / f"{rows}.csv", [["text"], *[[GOAL]] * rows])
        page.get_by_label("CSV file").set_input_files(file)
        page.get_by_role("button", name="Score").click()

    page.get_by_role("link", name="File").click()
    page.route("**/score?*", lambda _: None, times=1)  # the first is never answered
    with page.expect_request("**/score?*"):
        send(1)
    with page.expect_event("requestfailed", lambda one: "/score?" in one.url):
        send(2)
    expect(page.locator("#file-status")).to_contain_text("2 rows scored")
    expect(page.locator("#scored tbody tr")).to_have_count(2)
    expect(page.get_by_role("alert")).to_be_empty()


def test_the_servers_own_sentence_is_shown(page: Page, errors: list[str], tmp_path: Path) -> None:
    alert = page.get_by_role("alert")
    classify(page, "a" * 2001)
    expect(alert).to_contain_text("inputs[0] has 2001 characters: send at most 2000.")  # 413
    page.get_by_role("link", name="File").click()
    expect(alert).to_be_empty()
    for name, rows, sentence in (
        ("long.csv", [["text"], *[["a"]] * 21], "The file has more than 20 rows"),  # 413
        ("uneven.csv", [["text"], ["a", "b"]], "Line 2 has 2 fields, but the header has 1"),  # 422
    ):
        page.get_by_label("CSV file").set_input_files(write(tmp_path / name, rows))
        page.get_by_role("button", name="Score").click()
        expect(alert).to_contain_text(sentence)
    page.get_by_role("link", name="Texts").click()
    page.context.set_offline(True)
    classify(page, GOAL)
    expect(alert).to_contain_text("The server does not answer.")
    page.context.set_offline(False)
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer")).to_have_count(1)
    expect(alert).to_be_empty()
    # Chromium tries a request anew where the connection that it kept is gone, and says so again.
    offline = [one for one in errors if one.endswith("net::ERR_INTERNET_DISCONNECTED")]
    refused = "Failed to load resource: the server responded with a st"
    assert [one.startswith(refused) for one in errors if one not in offline] == [True] * 3
    assert offline
    errors.clear()


def test_a_model_that_is_not_sure_gives_no_answer(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    words = (*LIMITS.split(), "--min_score", "0.6")
    with serving(folder / "log-2", folder / "first", folder / "second", *words) as address:
        page = browser.new_page()
        visit(page, address)
        guess, sure = (predicted(address, text, "first")[0] for text in (UNSURE, GOAL))
        assert guess["score"] < 0.6 < sure["score"]
        told = f"{guess['label']} {percent(guess['score'])}"
        classify(page, GOAL, GOAL, UNSURE)  # of which the last is asked by itself
        verdicts, given = page.locator(".verdict"), f"{sure['label']} {percent(sure['score'])}"
        expect(verdicts.locator(".label")).to_have_text([given, given, "No answer"])
        expect(page.locator(".guess")).to_have_count(1)
        expect(verdicts.nth(2).locator(".guess")).to_have_text(f"best guess: {told}")
        expect(page.locator(".best")).to_have_count(2)
        page.get_by_role("button", name="Which words mattered?").last.click()
        caption = f"By how many points the probability of {told.replace(' ', ', ')}, falls"
        expect(page.locator("caption")).to_contain_text(caption)
        assert violations(page) == ""
        choose(page, "Side by side")
        other = predicted(address, UNSURE, "second")[0]
        assert other["score"] < 0.6
        assert other["label"] != guess["label"]
        expect(page.locator(".guess")).to_have_count(2)
        expect(page.locator("#status")).to_contain_text("The models agree on 3 of 3.")

        page.get_by_role("link", name="File").click()
        rows = [["guess", "text"], ["1", UNSURE], ["2", " "], ["3", GOAL], ["4", UNSURE]]
        page.get_by_label("CSV file").set_input_files(write(tmp_path / "a.csv", rows))
        added = "The columns predicted_label, predicted_guess and predicted_score are added."
        expect(page.locator("#csv-about")).to_contain_text(added)
        page.get_by_role("button", name="Score").click()
        scored = page.locator("#scored")
        expect(scored).to_contain_text("1 row without text got no label.")
        expect(scored.locator(".bars li")).to_have_text([f"{sure['label']}1", "No answer2"])
        cells = scored.locator("tbody tr td:nth-child(3)")
        expect(cells).to_have_text(["No answer", "", sure["label"], "No answer"])
        expect(scored.locator("tbody tr").nth(0).locator("td").nth(3)).to_have_text(guess["label"])
        assert violations(page) == ""
        page.get_by_role("link", name="Model").click()
        expect(page.locator(".facts")).to_contain_text("Answersfrom a score of 60.0%")
        page.context.close()


def test_a_server_with_a_key_is_asked_with_it(browser: Browser, folder: Path) -> None:
    words = (folder / "first", "--watch", "0")
    with serving(folder / "key-log", *words, SERVE_API_KEY="sésame ☂") as address:
        page = browser.new_page()
        page.goto(address)
        for key in ("wrong", "sésame ☂"):
            page.get_by_label("Key of this server").fill(key)
            with page.expect_response(f"{address}/models"):
                page.get_by_role("button", name="Use it").click()
        classify(page, GOAL)
        expect(page.locator(".answer")).to_have_count(1)
        expect(page.locator("#key")).to_be_hidden()
        page.get_by_role("link", name="routes of this server").click()
        expect(page.get_by_role("heading", name="POST /predict")).to_be_visible()
        page.context.close()


def test_a_paragraph_without_end_is_shown_without_markup(page: Page) -> None:
    """To look for the end of each sign in it would take minutes."""
    tags = page.evaluate(
        """async () => {
            const { blocks } = await import("./markdown.js");
            const texts = ["`a` **b**", "[a](".repeat(160_000), "` ".repeat(40_000)];
            return texts.map((text) => blocks(text).map((made) => made.children.length));
        }"""
    )
    assert tags == [[2], [0], [0]]


def test_the_page_of_a_model_shows_its_card_as_text(page: Page, server: str) -> None:
    page.get_by_role("link", name="Model").click()
    card = page.locator("#card")
    expect(page.get_by_role("heading", level=1, name="Topics of news")).to_be_visible()
    expect(card.locator(".tile")).to_have_text(["Accuracy97.5%", "Log loss0.2500"])
    expect(card.locator(".tiles + p")).to_have_text("Measured on the test texts of topics.csv")
    data, confusion, files = card.get_by_role("table").all()
    expect(data.get_by_role("row")).to_have_text(["labeltest", "film1,020"])
    expect(confusion.get_by_role("columnheader")).to_have_text(["label", "film", "sport"])
    expect(confusion.get_by_role("rowheader")).to_have_text(["film", "sport"])
    expect(confusion.get_by_role("cell")).to_have_text(["1,019", "1", "0", "980"])
    expect(files.get_by_role("row").last).to_have_text(f"model.onnx1,234{HASH}")
    expect(card.locator("li strong")).to_have_text("nearly")
    expect(card.locator("pre")).to_have_text('print("<b>")')
    expect(card.get_by_text(HOSTILE)).to_be_visible()
    expect(card.get_by_text("[a trap](javascript:alert(1))")).to_be_visible()
    assert card.locator(".prose a").evaluate_all("links => links.map((a) => a.href)") == [
        "https://example.org/"
    ]
    hashes = json.loads(requests.get(f"{server}/models/first/card", timeout=10).text)["manifest"]
    expect(card.locator(".hash")).to_have_text(hashes["files"]["model.onnx"])
    expect(card.locator(".facts dt").filter(has_text="Answers")).to_have_count(0)
    card.get_by_role("link", name="Limits").click()
    expect(card.get_by_role("heading", name="Limits")).to_be_focused()
    choose(page, "second", "#card-models")
    expect(card.get_by_text("There is no model card")).to_be_visible()
    expect(page.locator("#card-models input:checked")).to_be_focused()
    page.go_back()
    expect(card.get_by_role("heading", name="Limits")).to_be_visible()


def test_the_colours_are_the_systems_until_others_are_chosen(page: Page) -> None:
    def paper() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = paper()
    page.emulate_media(color_scheme="dark")
    dark = paper()
    assert light != dark
    button = page.get_by_role("button", name="Dark colours", pressed=True)
    button.click()
    assert paper() == light
    page.reload()
    assert paper() == light


def test_a_telephone_shows_all_without_scrolling_sideways(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    wide = "document.documentElement.scrollWidth"
    choose(page, "Side by side")
    classify(page, GOAL, "a" * 300)
    page.get_by_role("button", name="Which words mattered?").first.click()
    expect(page.locator("table.words")).to_have_count(2)
    assert page.evaluate(wide) == 360
    page.get_by_role("link", name="File").click()
    page.get_by_label("CSV file").set_input_files(
        write(tmp_path / "a_long_name_of_a_file_that_nobody_would_give.csv", [["text"], ["a" * 99]])
    )
    page.get_by_role("button", name="Score").click()
    expect(page.locator("#scored table")).to_be_visible()
    assert page.evaluate(wide) == 360
    page.get_by_role("link", name="Model").click()
    expect(page.locator(".tile")).to_have_count(2)
    assert page.evaluate(wide) == 360


def test_texts_from_right_to_left_stand_on_the_right(page: Page) -> None:
    classify(page, "הבנק מכר את מניותיו", BANK)
    said = page.locator(".said")
    expect(said).to_have_count(2)
    directions = said.evaluate_all("all => all.map((one) => getComputedStyle(one).direction)")
    assert directions == ["rtl", "ltr"]
    assert page.get_by_label("Text", exact=True).evaluate("e => getComputedStyle(e).direction") == (
        "rtl"
    )


def test_keys_alone_do_everything(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Text", exact=True)).to_be_focused()
    page.keyboard.type(GOAL)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".of-model")).to_have_count(0)
    expect(page.locator(".answer")).to_have_count(1)
    for key in ("Tab", "Tab", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("#status")).to_contain_text("second")
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Which words mattered?")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("table.words")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(page: Page, scheme: str, tmp_path: Path) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    assert violations(page) == ""
    choose(page, "Side by side")
    classify(page, GOAL, "goal " * 150)
    page.get_by_role("button", name="Which words mattered?").first.click()
    expect(page.locator("table.words")).to_have_count(2)
    assert violations(page) == ""
    page.get_by_role("link", name="File").click()
    page.get_by_label("CSV file").set_input_files(write(tmp_path / "a.csv", [["text"], [GOAL]]))
    page.get_by_role("button", name="Score").click()
    expect(page.locator("#scored table")).to_be_visible()
    assert violations(page) == ""
    page.get_by_role("link", name="Model").click()
    expect(page.locator(".tile")).to_have_count(2)
    assert violations(page) == ""
