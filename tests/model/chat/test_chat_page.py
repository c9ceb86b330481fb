"""The page of chat models in a real Chromium, over real models."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from chat_model import PARAMS
from chat_served import Served, expected, script, serving
from conftest import ROOT, violations
from playwright.sync_api import Page, expect

from src.chat.conversations import Conversation, Turn
from src.chat.formats import read
from src.predict.chat import front
from src.predict.chat.client import Chat, Request, Way
from src.serve.chat import PLAYGROUND
from src.tables.places import File

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) **bold** `code`"
TOOL = {"name": "area", "description": "", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(front.HOSTS, "127.0.0.1")
        patch.setenv(front.PAGE, str(PLAYGROUND))
        patch.setenv(front.FEEDBACK, str(folder / "feedback.jsonl"))
        with serving(folder, front.Front) as found:
            yield found


@pytest.fixture
def page(blank: Page, served: Served) -> Page:
    blank.goto(served.url)
    expect(blank.locator("#model option")).to_have_count(3)
    settings(blank, max_tokens=12)
    return blank


def settings(page: Page, **values: Any) -> None:
    page.get_by_text("How it answers").click()
    for name, value in values.items():
        page.locator(f"#{name}").fill(str(value))
    page.get_by_text("How it answers").click()


def send(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def done(page: Page) -> None:
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def answers(page: Page) -> list[str]:
    done(page)
    return page.locator(".turn.assistant .words").all_inner_texts()


def talkative(served: Served) -> str:
    """A question to which the base and the adapter say something."""
    engines = [served.engines[name] for name in ("base", "lora")]
    asked = (f"where is {number}?" for number in range(99))
    return next(one for one in asked if all(shown(expected(engine, one)) for engine in engines))


def shown(text: str) -> str:
    """Words of an answer, in whatever blocks Markdown makes of them."""
    return re.sub(r"\s+", "", text)


def test_an_answer_is_that_of_the_model_and_another_model_goes_on(
    page: Page, served: Served
) -> None:
    asked = talkative(served)
    send(page, asked)
    (said,) = answers(page)
    assert shown(said) == shown(expected(served.engines["base"], asked))
    expect(page.locator(".turn.user .words")).to_have_text(asked)
    page.locator("#model").select_option("lora")
    expect(page.locator(".turn.user .words")).to_have_text(asked)
    page.get_by_role("button", name="Retry").click()
    (other,) = answers(page)
    assert shown(other) == shown(expected(served.engines["lora"], asked)) != shown(said)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_page_terminal_curl_openai_and_python_get_one_answer(page: Page, served: Served) -> None:
    asked = talkative(served)
    given = {"messages": [{"role": "user", "content": asked}], "max_tokens": 12, "temperature": 0}
    for model in ("base", "lora"):
        whole = expected(served.engines[model], asked)
        assert served.say(asked, model=model).choices[0].message.content == whole
        (reply,) = Chat(served.url, model, way=Way(max_tokens=12)).answer([Request(asked)])
        assert reply.text == whole
        body = json.dumps(given | {"model": model})
        curl = ["curl", "-s", f"{served.url}/v1/chat/completions", "-d", body]
        curl += ["-H", "Content-Type: application/json"]
        told = json.loads(subprocess.run(curl, capture_output=True, check=True).stdout)
        assert told["choices"][0]["message"]["content"] == whole
        words = [sys.executable, "-m", "src.predict.chat", served.url, asked, "--model", model]
        words += ["--max_tokens", "12"]
        printed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
        assert printed.decode() == f"{whole}\n"
        page.locator("#model").select_option(model)
        send(page, asked)
        (said,) = answers(page)
        assert shown(said) == shown(whole)
        page.get_by_role("button", name="Clear").click()


def test_two_models_answer_side_by_side_with_how_likely_each_is(page: Page, served: Served) -> None:
    asked = talkative(served)
    # Before it is asked: the server's thread is the only one that may use an engine meanwhile.
    texts = [expected(served.engines[name], asked) for name in ("base", "lora")]
    page.locator("#beside").select_option("lora")
    send(page, asked)
    for figures in (page.locator(".figures").first, page.locator(".figures").last):
        for name in ("base", "lora"):
            expect(figures).to_contain_text(f"under {name}")
    expect(page.locator(".thread")).to_have_count(2)
    assert list(map(shown, answers(page))) == list(map(shown, texts))
    for place, text in enumerate(texts):
        told = page.locator(".figures").nth(place).inner_text()
        for name in ("base", "lora"):
            engine = served.engines[name]
            prompt = engine.renderer.prompt(Conversation((Turn("user", asked, False),)), 1)
            ids = [engine.renderer.ids(one) for one in (prompt, prompt + text)]
            mean = engine.likely(ids[1])[len(ids[0]) - 1 :].mean()
            (found,) = re.findall(rf"(-?[\d.]+) under {name}", told)
            assert float(found) == pytest.approx(float(mean), abs=0.01)


def test_an_answer_is_stopped_and_a_message_edited(
    page: Page, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        script(served, slow, "x" * 400, seconds=0.05)
        settings(page, max_tokens=450)
        send(page, "where?")
        expect(page.locator(".turn.assistant .words")).to_contain_text("xxx")
        expect(page.get_by_role("button", name="Retry")).to_have_count(0)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".figures")).to_have_text("stopped")
        assert "x" * 399 not in answers(page)[0]
        until = time.monotonic() + 20
        while served.scheduler._desks["base"].is_busy and time.monotonic() < until:
            time.sleep(0.01)
    settings(page, max_tokens=12)
    page.get_by_role("button", name="Edit").click()
    expect(page.locator(".turn")).to_have_count(0)
    message = page.get_by_label("Message", exact=True)
    expect(message).to_have_value("where?")
    expect(message).to_be_focused()
    send(page, "who?")
    assert len(answers(page)) == 1


def test_what_models_say_can_never_run(
    page: Page, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(served, monkeypatch, HOSTILE)
    settings(page, max_tokens=100)
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    send(page, HOSTILE)
    done(page)
    words = page.locator(".turn.assistant .words")
    expect(words).to_contain_text("<img src=x onerror=alert(1)> [a](javascript:alert(1)) bold code")
    expect(words.locator("strong")).to_have_text("bold")
    expect(page.locator(".turn img, .turn a")).to_have_count(0)
    expect(page.locator(".turn.user .words")).to_have_text(HOSTILE)


def only(path: Path) -> Conversation:
    """The one conversation that the stage `data` finds in a file."""
    (raw,) = read(File(path.name, "data.source", path, 2**20), "auto", {})
    assert isinstance(raw.found, dict)
    return Conversation.parse(raw.found)


def test_a_call_is_a_card_and_goes_on_with_what_its_tool_answers(
    page: Page, served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call = '<tool_call>\n{"name": "area", "arguments": {"side": 3}}\n</tool_call>'
    script(served, monkeypatch, call, "Nine.")
    settings(page, tools="[{", max_tokens=90)
    send(page, "How large?")
    expect(page.get_by_role("alert")).to_contain_text("The tools are no JSON")
    expect(page.get_by_label("Message", exact=True)).to_have_value("How large?")
    settings(page, tools=json.dumps([TOOL]))
    page.get_by_role("button", name="Send").click()
    card = page.get_by_role("group", name="Call of area")
    expect(card.locator("pre")).to_have_text('{ "side": 3 }')
    settings(page, max_tokens=20)
    card.get_by_label("What the tool answers").fill("9")
    card.get_by_role("button", name="Go on").click()
    done(page)
    expect(page.locator(".turn.tool .words")).to_have_text("9")
    expect(page.locator(".turn.assistant .words")).to_have_text("Nine.")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    saved = tmp_path / "conversation.jsonl"
    download.value.save_as(saved)
    found = only(saved)
    assert [turn.role for turn in found.turns] == ["user", "tool", "assistant"]
    assert found.turns[1].content == "9"
    page.get_by_role("button", name="Clear").click()
    page.locator("#load").set_input_files(saved)
    expect(page.locator(".turn")).to_have_count(4)
    expect(page.locator(".turn.assistant .words")).to_have_text("Nine.")
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "a"}}]}
    (tmp_path / "openai.jsonl").write_text(json.dumps({"messages": [called]}))
    page.locator("#load").set_input_files(tmp_path / "openai.jsonl")
    expect(page.get_by_role("group", name="Call of a")).to_be_visible()
    (tmp_path / "other.jsonl").write_text("[]")
    page.locator("#load").set_input_files(tmp_path / "other.jsonl")
    expect(page.get_by_role("alert")).to_contain_text("holds no conversation that was saved here")


def test_what_people_think_becomes_data(page: Page, folder: Path) -> None:
    settings(page, system="Be brief.")
    send(page, "who?")
    done(page)
    page.get_by_role("button", name="Good").click()
    expect(page.get_by_role("button", name="Good")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Bad").click()
    expect(page.get_by_role("button", name="Bad")).to_have_attribute("aria-pressed", "true")
    path = folder / "feedback.jsonl"
    assert [turn.role for turn in only(path).turns] == ["system", "user", "assistant"]
    down = json.loads((folder / "feedback.down.jsonl").read_text())
    assert (down["rating"], down["model"]) == ("down", "base")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 400),
        ('{"messages": [], "model": "a", "rating": "up"}', 400),
        ('{"messages": [{"role": "user"}, 3], "model": "a", "rating": "up"}', 400),
        ('{"messages": [{"role": "a"}, {"role": "\\ud800"}], "model": "a", "rating": "up"}', 400),
        ('{"messages": [{"role": "a"}, {"role": "a"}], "model": "a", "rating": "so so"}', 400),
        ('"' + "a" * 2**21 + '"', 413),
    ],
)
def test_what_is_no_feedback_is_not_written(
    body: str, status: int, served: Served, folder: Path
) -> None:
    def sizes() -> dict[str, int]:
        return {path.name: path.stat().st_size for path in folder.glob("feedback*")}

    before, url = sizes(), f"{served.url}/feedback"
    header = {"Content-Type": "application/json"}
    refused = requests.post(url, data=body, headers=header, timeout=20)
    assert refused.status_code == status
    assert refused.json()["error"]["code"] == status
    assert requests.post(url, data=body, timeout=20).status_code == 415
    assert sizes() == before
    for path in ("/chat/../app.py", "/chat/%2e%2e/app.js", "/app.js", "/chat/nothing.js"):
        assert requests.get(f"{served.url}{path}", timeout=20).status_code == 404


def test_a_server_that_goes_is_told_and_found_again(page: Page, errors: list[str]) -> None:
    page.route("**/v1/**", lambda route: route.abort())
    page.route("**/health", lambda route: route.abort())
    send(page, "who?")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(page.locator(".turn.user .words")).to_have_text("who?")
    page.unroute_all()
    expect(page.get_by_role("alert")).to_be_empty(timeout=20_000)
    assert page.get_by_role("status").inner_text() == "The server is back."
    assert {error.partition("ERR_FAILED")[1] for error in errors} == {"ERR_FAILED"}
    errors.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_and_all_fits_a_phone(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    assert violations(page) == ""
    page.locator("#beside").select_option("lora")
    send(page, "who?")
    expect(page.locator(".figures").first).to_contain_text("under", timeout=20_000)
    page.get_by_text("How it answers").click()
    assert violations(page) == ""
    page.set_viewport_size({"width": 360, "height": 740})
    assert violations(page) == ""
    page.get_by_text("How it answers").click()
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360


def test_the_colours_that_are_chosen_stay(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    button = page.get_by_role("button", name="Dark colours")
    expect(button).to_have_attribute("aria-pressed", "false")
    button.click()
    page.reload()
    expect(button).to_have_attribute("aria-pressed", "true")
