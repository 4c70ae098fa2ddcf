"""A headless Chromium on a locally served copy of the built book."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

# One height for all pages: tall enough for a paragraph and a figure, as on a real screen.
HEIGHT = 900
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=BackForwardCache",  # pages left behind would fill the memory
    "--hide-scrollbars",
)


def programs() -> tuple[str, str] | None:
    """Paths of Chromium and ChromeDriver, or None if either is missing."""
    browsers = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in browsers if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


@contextmanager
def serve(site: Path) -> Iterator[str]:
    """Serves a folder on a free local port; yields its address without a trailing slash."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def browser() -> Iterator[WebDriver]:
    """A browser with a fresh profile that logs its console and every request."""
    found = programs()
    if found is None:
        raise RuntimeError("Chromium and ChromeDriver are needed; install both and try again")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = found[0]
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(found[1]))
        driver.set_script_timeout(110)  # below the client's own limit
        try:
            # Leaves the start page, whose requests are the browser's own.
            driver.get("about:blank")
            driver.get_log("performance")
            yield driver
        finally:
            driver.quit()


def set_width(driver: WebDriver, width: int, height: int = HEIGHT) -> None:
    """Gives the page this many CSS pixels; narrow pages behave as on a phone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def set_theme(driver: WebDriver, theme: str) -> None:
    """Chooses the light or dark theme as the page's own button does, for later pages too."""
    driver.execute_script(
        "for (const key of ['mode', 'theme']) localStorage.setItem(key, arguments[0]);"
        "document.documentElement.dataset.mode = document.documentElement.dataset.theme ="
        " arguments[0];",
        theme,
    )


def open_page(driver: WebDriver, address: str, width: int, theme: str) -> None:
    """Loads a page with empty logs and a chosen theme."""
    site = urlsplit(address)
    # The theme is kept by the site, so that one of its files has to be there to set it. The page
    # that was there before would draw all of its figures again in the other theme and width.
    driver.get(f"{site.scheme}://{site.netloc}/_static/favicon.svg")
    set_width(driver, width)
    set_theme(driver, theme)
    errors(driver)
    requests_made(driver)
    driver.get(address)


def settle(driver: WebDriver) -> None:
    """Scrolls to every figure until it is drawn and waits for the maths, then goes back up."""
    driver.execute_async_script(
        """
        const done = arguments[0];
        // Observers of what is on the screen are told once in a frame.
        const frame = () => new Promise(requestAnimationFrame);
        const pause = () => new Promise((resolve) => setTimeout(resolve, 30));
        const scroll = async (top) => {
          window.scrollTo({top, behavior: "instant"});
          await frame();
          await frame();
        };
        (async () => {
          if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
          // One by one: a busy browser skips frames, and in them a figure that is scrolled past.
          for (const figure of document.querySelectorAll(".sami-figure")) {
            if (!figure.offsetParent) continue;
            figure.scrollIntoView({block: "center", behavior: "instant"});
            const end = performance.now() + 15000;
            while (!("drawn" in figure.dataset) && performance.now() < end) await pause();
          }
          await scroll(document.body.scrollHeight);
          await scroll(0);
        })().then(done, done);
        """
    )


def errors(driver: WebDriver) -> list[str]:
    """Errors that the console has shown since the last call."""
    return [each["message"] for each in driver.get_log("browser") if each["level"] == "SEVERE"]


def requests_made(driver: WebDriver) -> list[str]:
    """Addresses requested since the last call, without data: and blob: ones."""
    messages = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    addresses = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [each for each in addresses if not each.startswith(("data:", "blob:", "about:"))]
