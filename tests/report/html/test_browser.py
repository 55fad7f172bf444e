"""Opens the report in Chromium: no console error, no request, a matrix that sorts and shows images. Skipped without Chromium."""

from __future__ import annotations

import json
import shutil

import pytest

from crossroads.report.html.page import report_page
from report_subjects import HOSTILE, subject

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver on the path")


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a report. At the end, checks that there was no error and no request but that of the file."""

    def open_report(**changes):
        path = tmp_path / "report.html"
        path.write_text(report_page(subject(tmp_path / "run", **changes)), encoding="utf-8")
        browser.get(path.as_uri())
        return browser

    browser.get_log("performance")
    yield open_report
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert all(address.startswith(("file:", "data:")) for address in addresses)


def names(browser):
    return [cell.text for cell in browser.find_elements("css selector", "#matrix tbody th") if cell.is_displayed()]


def choose(browser, control, value):
    browser.execute_script(
        "const c = document.getElementById(arguments[0]); c.value = arguments[1]; c.dispatchEvent(new Event('change'));",
        control,
        value,
    )


def test_the_matrix_sorts_and_filters(opened):
    browser = opened(k=5, n=200)
    before = names(browser)
    choose(browser, "order", "errors")
    rows = browser.find_elements("css selector", "#matrix tbody tr")
    errors = [int(row.get_attribute("data-errors")) for row in rows]
    assert errors == sorted(errors, reverse=True)
    diagonal = browser.execute_script(
        "return [...document.querySelectorAll('#matrix tbody tr')].map((r, i) => r.cells[i + 1].className)"
    )
    assert all(name.startswith("g") for name in diagonal)
    choose(browser, "order", "name")
    assert names(browser) == before


def test_a_click_shows_the_images_of_a_cell(opened):
    browser = opened(k=5, n=200)
    cell = browser.find_element("css selector", "#matrix td[class^=b]")
    count = int(cell.text)
    browser.execute_script("arguments[0].click()", cell)
    panel = browser.find_element("id", "cell")
    assert panel.is_displayed()
    pictures = panel.find_elements("css selector", "img")
    assert len(pictures) == min(count, 6)
    assert all(browser.execute_script("return arguments[0].naturalWidth", picture) for picture in pictures)


def test_the_keyboard_reaches_every_cell(opened):
    browser = opened(k=3, n=90)
    steps = (
        "for (const key of arguments[0]) document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));"
    )
    browser.execute_script(
        "document.querySelector('#matrix td[tabindex=\"0\"]').focus();" + steps, ["ArrowDown", "ArrowRight", "Enter"]
    )
    assert "class 1 are classified correctly" in browser.find_element("id", "readout").text
    assert browser.find_element("id", "cell").is_displayed()


def test_a_pair_shows_its_images_even_of_very_many_classes(opened):
    browser = opened(k=300, n=2000, pictures=False)
    pair = browser.find_element("css selector", "[data-cell]")
    browser.execute_script("arguments[0].click()", pair)
    true, _, predicted = pair.text.partition(" taken for ")
    heading = browser.find_element("css selector", "#cell h3").text
    assert f"of {true} taken for {predicted}" in heading


def test_many_classes_are_filtered_at_first(opened):
    browser = opened(k=80, n=1500, pictures=False)
    assert len(names(browser)) == 40
    choose(browser, "shown", "all")
    assert len(names(browser)) == 80


def test_tables_are_sorted_by_a_column(opened):
    browser = opened(k=5, n=200)
    browser.execute_script("document.querySelectorAll('table.classes thead button')[1].click()")
    counts = [int(row.text) for row in browser.find_elements("css selector", "table.classes tbody tr td:nth-child(2)")]
    assert counts == sorted(counts)


def test_hostile_names_run_no_script(opened):
    browser = opened(classes=HOSTILE, n=60)
    browser.execute_script("document.querySelector('#matrix td[class^=b]').click()")
    assert "<script>alert(1)</script>" in browser.find_element("id", "matrix").text


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(opened, width):
    browser = opened(k=43, n=600)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
