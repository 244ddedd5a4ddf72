"""The page in a real browser: a slice goes in, its mask lies over it.

Chromium is driven through chromedriver's own HTTP interface (W3C WebDriver).
"""

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
)
# WebDriver's name for the reference of an element.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window of headless Chromium."""

    def __init__(self, driver: httpx.Client, capabilities: dict[str, Any]) -> None:
        self._driver = driver
        made = driver.post("/session", json={"capabilities": {"alwaysMatch": capabilities}})
        self._path = f"/session/{made.json()['value']['sessionId']}"

    def call(self, path: str, **arguments: Any) -> Any:
        answer = self._driver.post(f"{self._path}/{path}", json=arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def script(self, text: str, *arguments: Any) -> Any:
        return self.call("execute/sync", script=text, args=list(arguments))

    def text(self, selector: str) -> str:
        return self.script("return document.querySelector(arguments[0]).innerText", selector)

    def type(self, selector: str, text: str) -> None:
        element = self.call("element", using="css selector", value=selector)[ELEMENT]
        self.call(f"element/{element}/value", text=text)

    def press(self, selector: str) -> None:
        element = self.call("element", using="css selector", value=selector)[ELEMENT]
        self.call(f"element/{element}/click")

    def wait(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.script("return document.body.innerText")
            time.sleep(0.1)

    def log(self) -> list[dict[str, Any]]:
        return self._driver.post(f"{self._path}/se/log", json={"type": "browser"}).json()["value"]

    def requests(self) -> list[str]:
        """The addresses of all that the page has asked for."""
        lines = self._driver.post(f"{self._path}/se/log", json={"type": "performance"})
        events = [json.loads(line["message"])["message"] for line in lines.json()["value"]]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def image(self, file: Path) -> None:
        answer = self._driver.get(f"{self._path}/screenshot").json()["value"]
        file.write_bytes(base64.b64decode(answer))

    def close(self) -> None:
        self._driver.delete(self._path)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    words = ["chromedriver", f"--port={port}", "--silent"]
    with (
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as driver,
    ):
        deadline = time.monotonic() + 60
        while not _answers(driver):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        session = Browser(
            driver,
            {
                "browserName": "chrome",
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
                "goog:chromeOptions": {
                    "binary": shutil.which("chromium"),
                    "args": [
                        "--headless=new",
                        "--no-sandbox",
                        "--disable-dev-shm-usage",
                        "--disable-gpu",
                        "--window-size=1200,860",
                        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
                    ],
                },
            },
        )
        yield session
        session.close()
        process.terminate()


def _answers(driver: httpx.Client) -> bool:
    try:
        return driver.get("/status").json()["value"]["ready"]
    except httpx.TransportError:
        return False


def alpha(browser: Browser) -> int:
    """Pixels of the mask's layer that are tinted."""
    return browser.script(
        """
        const mask = document.getElementById("mask");
        const data = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height).data;
        let count = 0;
        for (let at = 3; at < data.length; at += 4) count += data[at] > 0;
        return count;
        """
    )


def test_a_slice_becomes_a_mask_over_it(
    service: Any, browser: Browser, slice_png: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "bright.png"
    file.write_bytes(slice_png)
    with service.client() as client:
        headers = {"Content-Type": "image/png", "Accept": "application/json"}
        expected = client.post("/v1/segment", content=slice_png, headers=headers).json()
    browser.call("url", url=service.url)
    browser.type("#file", str(file))
    browser.wait(lambda: "API key is missing" in browser.text("#error"))
    browser.type("#key", service.key)
    browser.press("#key-form button")
    browser.wait(lambda: browser.text("#status").startswith("Mask of"))

    assert browser.text("#area") == f"{expected['area']:,} px"
    assert browser.text("#model") == browser.text("#version") == "bright@1"
    assert "s, of which the service" in browser.text("#seconds")
    box = expected["bounding_box"]
    assert browser.text("#box") == f"{box['width']} × {box['height']} at {box['x']}, {box['y']}"
    assert alpha(browser) == expected["area"]

    browser.script(
        "const slider = document.getElementById('opacity'); slider.value = 20;"
        "slider.dispatchEvent(new Event('input'))"
    )
    assert browser.script("return document.getElementById('mask').style.opacity") == "0.2"
    assert browser.script("return document.getElementById('mask').ariaLabel").startswith("Mask of")
    browser.image(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 5000


def test_what_is_no_image_is_reported_on_the_page(
    service: Any, browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "notes.png"
    file.write_text("no image")
    browser.call("url", url=service.url)
    browser.script("sessionStorage.setItem('segfleet-key', arguments[0])", service.key)
    browser.type("#file", str(file))
    browser.wait(lambda: "not a PNG, JPEG, BMP or TIFF" in browser.text("#error"))
    assert alpha(browser) == 0


def test_a_slice_that_is_read_late_stays_off_the_next_one(
    service: Any, browser: Browser, slice_png: bytes, tmp_path: Path
) -> None:
    (tmp_path / "next.png").write_bytes(slice_png)
    late = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()
    (tmp_path / "late.png").write_bytes(late)
    browser.call("url", url=service.url)
    browser.script("sessionStorage.setItem('segfleet-key', arguments[0])", service.key)
    browser.script(
        """
        const read = window.createImageBitmap;
        window.createImageBitmap = (file) => {
          if (file.name !== "late.png") return read(file);
          const held = new Promise((go) => { window.go = go; });
          return window.late = held.then(() => read(file));
        };
        """
    )
    browser.type("#file", str(tmp_path / "late.png"))
    browser.type("#file", str(tmp_path / "next.png"))
    browser.wait(lambda: browser.text("#status").startswith("Mask of"))
    browser.script(
        "window.go(); return window.late.then(() => new Promise((done) => setTimeout(done)))"
    )
    assert browser.text("#name") == "next.png"
    assert browser.script("return document.getElementById('slice').width") == 96


def test_the_docs_page_shows_every_call(service: Any, browser: Browser) -> None:
    browser.call("url", url=f"{service.url}/docs")
    browser.wait(lambda: "/v1/segment" in browser.text("#calls"))
    shown = browser.text("body")
    for words in ("/v1/model", "/healthz", "/v1/status", "bounding_box", "406", service.url):
        assert words in shown


def test_the_pages_ask_none_else(service: Any, browser: Browser) -> None:
    for path in ("/", "/docs"):
        browser.call("url", url=service.url + path)
        browser.wait(lambda: browser.script("return document.readyState") == "complete")
    asked = [url for url in browser.requests() if not url.startswith(("chrome", "data:"))]
    assert asked
    assert all(url.startswith(service.url) for url in asked), asked
    faults = [line for line in browser.log() if "Content Security Policy" in line["message"]]
    assert faults == []
