"""The web page in a real browser: a slice is segmented and its mask drawn over it.

Chromium is driven through chromedriver's own HTTP interface (W3C WebDriver).
"""

import base64
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from tests.inference.conftest import THREE_CLASSES
from tests.waiting import HANG_TIMEOUT_S, wait_until

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
)
# The key of an element's reference in the WebDriver protocol.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window of headless Chromium."""

    def __init__(self, driver: httpx.Client, capabilities: dict[str, Any]) -> None:
        self._driver = driver
        session = driver.post("/session", json={"capabilities": {"alwaysMatch": capabilities}})
        self._path = f"/session/{session.json()['value']['sessionId']}"

    def call(self, path: str, **arguments: Any) -> Any:
        response = self._driver.post(f"{self._path}/{path}", json=arguments)
        assert response.status_code == 200, response.text
        return response.json()["value"]

    def run_script(self, text: str, *arguments: Any) -> Any:
        return self.call("execute/sync", script=text, args=list(arguments))

    def text(self, selector: str) -> str:
        return self.run_script("return document.querySelector(arguments[0]).innerText", selector)

    def type_into(self, selector: str, text: str) -> None:
        element = self.call("element", using="css selector", value=selector)[ELEMENT]
        self.call(f"element/{element}/value", text=text)

    def click(self, selector: str) -> None:
        element = self.call("element", using="css selector", value=selector)[ELEMENT]
        self.call(f"element/{element}/click")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, lambda: self.run_script("return document.body.innerText"))

    def console_messages(self) -> list[dict[str, Any]]:
        return self._driver.post(f"{self._path}/se/log", json={"type": "browser"}).json()["value"]

    def requested_urls(self) -> list[str]:
        """The URLs of all requests of the page."""
        lines = self._driver.post(f"{self._path}/se/log", json={"type": "performance"})
        events = [json.loads(line["message"])["message"] for line in lines.json()["value"]]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def save_screenshot(self, file: Path) -> None:
        screenshot = self._driver.get(f"{self._path}/screenshot").json()["value"]
        file.write_bytes(base64.b64decode(screenshot))

    def close(self) -> None:
        self._driver.delete(self._path)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = ["chromedriver", f"--port={port}", "--silent"]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANG_TIMEOUT_S) as driver,
    ):
        wait_until(lambda: _is_ready(driver))
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


def _is_ready(driver: httpx.Client) -> bool:
    try:
        return driver.get("/status").json()["value"]["ready"]
    except httpx.TransportError:
        return False


def count_mask_pixels(browser: Browser) -> int:
    """The number of colored pixels of the mask canvas."""
    return browser.run_script(
        """
        const mask = document.getElementById("mask");
        const data = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height).data;
        let count = 0;
        for (let index = 3; index < data.length; index += 4) count += data[index] > 0;
        return count;
        """
    )


def shown_classes(browser: Browser) -> list[list[str]]:
    """Name, area, share and bounding box of each class."""
    return browser.run_script(
        """
        const entries = [...document.querySelectorAll("#classes li")];
        return entries.map((entry) => [...entry.children].map((child) => child.innerText));
        """
    )


def mask_color(browser: Browser, x: int, y: int) -> list[int]:
    """Red, green, blue and alpha of a pixel of the mask canvas."""
    return browser.run_script(
        """
        const context = document.getElementById("mask").getContext("2d");
        return [...context.getImageData(arguments[0], arguments[1], 1, 1).data];
        """,
        x,
        y,
    )


def test_the_mask_and_its_measurements_are_shown(
    service: Any, browser: Browser, slice_png: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "bright.png"
    file.write_bytes(slice_png)
    with service.client() as client:
        headers = {"Content-Type": "image/png", "Accept": "application/json"}
        expected = client.post("/v1/segment", content=slice_png, headers=headers).json()
    browser.call("url", url=service.url)
    browser.type_into("#file", str(file))
    browser.wait_until(lambda: "API key is missing" in browser.text("#error"))
    browser.type_into("#api-key", service.api_key)
    browser.click("#api-key-form button")
    browser.wait_until(lambda: browser.text("#status").startswith("Mask of"))

    assert browser.text("#served-model") == browser.text("#model") == "bright@1"
    assert browser.text("#input-size") == "32 × 32 pixels"
    assert browser.text("#time").endswith("s in the service")
    (foreground,) = expected["classes"]
    box = foreground["bounding_box"]
    assert shown_classes(browser) == [
        [
            "foreground",
            f"{foreground['area']:,} px",
            f"{100 * foreground['area'] / (64 * 96):.2f} %",
            f"{box['width']} × {box['height']} at {box['x']}, {box['y']}",
        ]
    ]
    assert count_mask_pixels(browser) == foreground["area"]

    browser.run_script(
        "const slider = document.getElementById('opacity'); slider.value = 20;"
        "slider.dispatchEvent(new Event('input'))"
    )
    assert browser.run_script("return document.getElementById('mask').style.opacity") == "0.2"
    assert browser.run_script("return document.getElementById('mask').ariaLabel").startswith(
        "Mask of"
    )
    browser.save_screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 5000


def test_every_class_has_its_color_area_and_switch(
    three_classes: Any, browser: Browser, bands_png: bytes, tmp_path: Path
) -> None:
    (tmp_path / "bands.png").write_bytes(bands_png)
    browser.call("url", url=three_classes.url)
    browser.run_script(
        "sessionStorage.setItem('segfleet-key', arguments[0])", three_classes.api_key
    )
    browser.type_into("#file", str(tmp_path / "bands.png"))
    browser.wait_until(lambda: browser.text("#status").startswith("Mask of"))
    rows = shown_classes(browser)
    assert [row[0] for row in rows] == ["organ", "lesion", "bone"]
    areas = [int(row[1].removesuffix(" px").replace(",", "")) for row in rows]
    assert sum(areas) == count_mask_pixels(browser)
    assert all(area > 300 for area in areas)
    for x, each in zip((24, 48, 72), THREE_CLASSES, strict=True):
        assert mask_color(browser, x, 25) == [*each.color, 255]
    browser.click("#classes li:nth-child(2) input[type=checkbox]")
    assert mask_color(browser, 48, 25) == [0, 0, 0, 0]
    assert count_mask_pixels(browser) == areas[0] + areas[2]
    browser.click("#classes li:nth-child(2) input[type=checkbox]")
    assert count_mask_pixels(browser) == sum(areas)
    browser.save_screenshot(tmp_path / "classes.png")


def test_an_invalid_image_is_reported_on_the_page(
    service: Any, browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "notes.png"
    file.write_text("not an image")
    browser.call("url", url=service.url)
    browser.run_script("sessionStorage.setItem('segfleet-key', arguments[0])", service.api_key)
    browser.type_into("#file", str(file))
    browser.wait_until(lambda: "not a PNG, JPEG, BMP, TIFF" in browser.text("#error"))
    assert count_mask_pixels(browser) == 0


def test_a_slice_that_is_decoded_late_does_not_replace_the_next_one(
    service: Any, browser: Browser, slice_png: bytes, tmp_path: Path
) -> None:
    (tmp_path / "next.png").write_bytes(slice_png)
    late = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()
    (tmp_path / "late.png").write_bytes(late)
    browser.call("url", url=service.url)
    browser.run_script("sessionStorage.setItem('segfleet-key', arguments[0])", service.api_key)
    browser.run_script(
        """
        const decode = window.createImageBitmap;
        window.createImageBitmap = (file) => {
          if (file.name !== "late.png") return decode(file);
          const released = new Promise((resolve) => { window.release = resolve; });
          return window.lateImage = released.then(() => decode(file));
        };
        """
    )
    browser.type_into("#file", str(tmp_path / "late.png"))
    browser.type_into("#file", str(tmp_path / "next.png"))
    browser.wait_until(lambda: browser.text("#status").startswith("Mask of"))
    browser.run_script(
        "window.release();"
        "return window.lateImage.then(() => new Promise((resolve) => setTimeout(resolve)))"
    )
    assert browser.text("#file-name") == "next.png"
    assert browser.run_script("return document.getElementById('slice').width") == 96


def test_the_docs_page_lists_every_endpoint(service: Any, browser: Browser) -> None:
    browser.call("url", url=f"{service.url}/docs")
    browser.wait_until(lambda: "/v1/segment" in browser.text("#reference"))
    text = browser.text("body")
    for expected in (
        "/v1/model",
        "/healthz",
        "/v1/status",
        "/v1/probability",
        "bounding_box",
        "406",
        service.url,
    ):
        assert expected in text


def test_the_pages_contact_no_other_host(service: Any, browser: Browser) -> None:
    for path in ("/", "/docs"):
        browser.call("url", url=service.url + path)
        browser.wait_until(lambda: browser.run_script("return document.readyState") == "complete")
    urls = [url for url in browser.requested_urls() if not url.startswith(("chrome", "data:"))]
    assert urls
    assert all(url.startswith(service.url) for url in urls), urls
    violations = [
        line for line in browser.console_messages() if "Content Security Policy" in line["message"]
    ]
    assert violations == []
