"""Covers the pages: their policies, and the whole page in a real Chromium, if there is one."""

import contextlib
import json
import re
import shutil
import time

import numpy as np
import pytest

from crossroads import artifact
from crossroads.predictor import Predictor
from crossroads.serve.page import REPORT_POLICY
from picture_files import encoded, pictures
from serve_running import running
from tiny_artifact import CLASSES, contents

REPORT = """<title>report</title><script>
fetch("/v1/models").then(() => { document.title = "reached"; }, () => { document.title = "refused"; });
</script>"""
SCRIPT = "<script>alert(1)</script>"

DROP = """
const [target, text, name, kind] = arguments;
const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name, {type: "image/png"}));
const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})
                               : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
target.dispatchEvent(event);
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Returns the folder of an artifact whose classes and report are hostile."""
    run = tmp_path_factory.mktemp("hostile") / "run"
    artifact.write(run, contents(classes=(SCRIPT, "<img src=x onerror=alert(2)>", "&amp;", "'\"", "größer")), {})
    (run / "report.html").write_text(REPORT)
    return run


def test_the_page_has_no_inline_code_and_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", page.text)
    assets = re.findall(r"(?:src|href)=\"([^\"#]+)\"", page.text)
    assert all(address.startswith("/") for address in assets)
    for address in assets:
        if address.startswith("/static"):
            answer = client.get(address)
            assert answer.status_code == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "http:" not in answer.text.replace("http://www.w3.org/", "")


def test_the_documentation_lists_every_route(client):
    text = client.get("/docs").text
    assert "<script" not in text
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f'<span class="method">{method.upper()}</span> {path}</h2>' in text


def test_a_report_cannot_use_the_server(connect, hostile):
    with connect(m=hostile) as client:
        answer = client.get("/report/m")
        assert answer.headers["content-security-policy"] == REPORT_POLICY
        assert "sandbox allow-scripts;" in REPORT_POLICY
        assert client.get("/v1/models").json()["models"][0]["report"]


@pytest.fixture(scope="module")
def browser():
    """Returns Debian's Chromium. Skips the test, visibly, where it or its driver is absent."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def site(first, hostile):
    with running(f"first={first}", f"hostile={hostile}") as server:
        yield server


def until(condition, seconds=60):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):  # the element is not there yet
            if found := condition():
                return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def shown(browser, name):
    from selenium.webdriver.common.by import By

    element = browser.find_element(By.ID, name)
    return element.text if element.is_displayed() else None


def requested(browser):
    """Returns the addresses that the page has requested."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def give(browser, data, kind):
    """Drops, pastes or chooses an image."""
    import base64

    target = browser.find_element("id", "drop")
    browser.execute_script(DROP, target, base64.b64encode(data).decode(), "x.png", kind)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_on_the_page_shows_its_class(browser, site, first, kind):
    (picture,) = pictures(1, side=64)
    expected = Predictor.load(first).predict([picture])[0].labels
    browser.get(site.address)
    until(lambda: "5 classes" in shown(browser, "facts"))
    give(browser, picture, kind)
    assert until(lambda: shown(browser, "winner")) == expected[0].label
    bars = shown(browser, "bars").splitlines()
    assert bars[::2] == [ranked.label for ranked in expected]
    assert bars[1::2] == [f"{100 * ranked.probability:.1f} %" for ranked in expected]
    until(lambda: browser.execute_script("return document.getElementById('heat').naturalWidth") > 0)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert {
        address for address in requested(browser) if not address.startswith((site.address, "blob:", "data:", "chrome"))
    } == set()


def test_choosing_a_file_and_another_model(browser, site, tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(pictures(1, side=64)[0])
    browser.get(site.address)
    until(lambda: "5 classes" in shown(browser, "facts"))
    browser.find_element("id", "file").send_keys(str(file))
    assert until(lambda: shown(browser, "winner")) in CLASSES
    browser.find_element("css selector", "#model option[value=hostile]").click()
    until(lambda: SCRIPT in shown(browser, "bars"))
    assert browser.execute_script("return document.querySelectorAll('#bars img, #bars script').length") == 0
    assert shown(browser, "report") == "Report"


def test_errors_are_shown(browser, site):
    browser.get(site.address)
    until(lambda: "5 classes" in shown(browser, "facts"))
    give(browser, b"no image", "drop")
    assert "not an image" in until(lambda: shown(browser, "error"))
    give(browser, encoded(np.zeros((9, 9, 3), np.uint8)), "drop")
    until(lambda: shown(browser, "winner"))
    assert shown(browser, "error") is None


def test_a_hostile_report_reaches_nothing(browser, site):
    browser.get(f"{site.address}/report/hostile")
    assert until(lambda: browser.title != "report" and browser.title) == "refused"
