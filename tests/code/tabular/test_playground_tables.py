"""The page of records in a real Chromium, over a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from conftest import make_model, make_table
from playwright.sync_api import Page, expect
from served import served
from tabular_model import PARAMS, make_table_model

from src.predict.manifest import list_too

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no pipeline of tables")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of texts and of tables, whose x.csv lies in its folder."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "texts").mkdir()
    model = make_table_model(folder, 400) / "model"
    told = {
        name: {"importance": share, "spread": abs(share) / 10}
        for name, share in {"opened (hour)": 0.15, "amount": 0.3, "shop": -0.01}.items()
    }
    (model / "importance.json").write_text(json.dumps(told))
    list_too(model, "importance.json")
    words = make_model(folder / "texts"), folder / "model", "--watch", "0"
    with served(folder / "log.txt", *words) as (url, _):
        yield url


@pytest.fixture
def page(blank: Page) -> Page:
    blank.set_viewport_size({"width": 1100, "height": 900})
    return blank


def ask(page: Page, **values: str) -> None:
    for name, value in values.items():
        box = page.get_by_label(name, exact=True)
        if box.evaluate("box => box.tagName") == "SELECT":
            box.select_option(label=value)
        else:
            box.fill(value)
    page.locator("#record button[type=submit]").click()


def test_a_record_is_decided_and_explained(page: Page, server: str) -> None:
    page.goto(f"{server}/#/records")
    expect(page.locator("#fields .field")).to_have_count(6)
    expect(page.get_by_label("country")).to_have_value("de")
    ask(page, amount="500", member="no")
    verdict = page.locator("#decision .label")
    expect(verdict).to_contain_text("1")
    row = page.locator("#decision tbody tr").first
    expect(row).to_contain_text("amount")
    expect(row).to_contain_text("500")
    _, described = requests.get(f"{server}/models", timeout=20).json()
    record = {one["name"]: one["usual"] for one in described["columns"]}
    shown = float(page.get_by_label("income").input_value())
    record |= {"amount": 500, "member": False, "income": shown}
    body = {"records": [record], "model": "model"}
    answer = requests.post(f"{server}/predict", json=body, timeout=20).json()[0]
    percent = f"{100 * answer['probabilities'][answer['label']]:.1f}%".replace("100.0", ">99.9")
    expect(verdict).to_contain_text(percent)
    page.get_by_role("button", name="Usual values").click()
    assert page.get_by_label("amount").input_value() != "500"
    expect(page.locator("#decision .label")).to_have_count(0)


def test_what_the_model_goes_by_is_drawn(page: Page, server: str) -> None:
    page.goto(f"{server}/#/records")
    bars = page.locator("#importance li")
    expect(bars).to_have_text(["amount0.300 ± 0.030", "opened (hour)0.150 ± 0.015"])
    widths = [bar.bounding_box() for bar in bars.locator(".fill").all()]
    assert all(widths)
    first, second = (box["width"] for box in widths if box)
    assert first == pytest.approx(2 * second, rel=0.02)


def test_the_servers_own_sentence_is_shown(page: Page, server: str, errors: list[str]) -> None:
    page.goto(f"{server}/#/records")
    expect(page.locator("#fields .field")).to_have_count(6)
    ask(page, opened="2024-03-01", shop="", amount="abc")
    told = "records[0] has 'abc' in 'amount', a number: correct it."
    expect(page.locator("#problem")).to_contain_text(told)
    page.get_by_label("amount").fill("")  # not known
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#decision .label")).to_have_count(1)
    assert "422" in errors.pop()


def test_texts_and_tables_have_pages_of_their_own(page: Page, server: str) -> None:
    page.goto(server)
    names = page.locator("nav[aria-label=Pages] a:visible")
    expect(names).to_have_text(["Texts", "Records", "File", "Model"])
    expect(page.locator("#text-models label")).to_have_count(1)
    page.get_by_role("link", name="Model", exact=True).click()
    page.locator("#card-models label", has_text="model").last.click()
    expect(page.locator(".facts")).to_contain_text("for 1 from a probability of")
    expect(page.locator(".facts")).to_contain_text("amount")


def test_a_file_of_records_comes_back_scored(page: Page, server: str, tmp_path: Path) -> None:
    frame = make_table(30).astype(str)
    frame.loc[3, "amount"] = "abc"
    frame.to_csv(tmp_path / "in.csv", index=False)
    page.goto(f"{server}/#/file")
    page.locator("#file-models label").last.click()
    expect(page.get_by_label("Column of the texts")).to_be_hidden()
    page.locator("#csv").set_input_files(tmp_path / "in.csv")
    expect(page.locator("#csv-about")).to_contain_text("columns label and probability are added")
    page.locator("#score button[type=submit]").click()
    expect(page.locator("#file-status")).to_contain_text("30 rows scored in")
    expect(page.locator("#scored")).to_contain_text("1 row with a value that can't be read got no")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(page: Page, server: str, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"{server}/#/records")
    expect(page.locator("#fields .field")).to_have_count(6)
    ask(page, amount="500")
    expect(page.locator("#decision .label")).to_have_count(1)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
