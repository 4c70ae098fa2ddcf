"""Every page in a real browser: quiet, local, drawn, no wider than the screen, light and dark."""

from __future__ import annotations

import pytest

pytest.importorskip("selenium")

import chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.browser


def open_page(driver: WebDriver, address: str, page: str, width: int, theme: str = "light") -> None:
    """Loads a page with empty logs and a chosen theme."""
    chrome.set_width(driver, width)
    if not driver.current_url.startswith(address):
        driver.get(f"{address}/search.html")
    chrome.set_theme(driver, theme)
    driver.get_log("browser")
    chrome.requests_made(driver)
    driver.get(f"{address}/{page}")


def wait(driver: WebDriver, script: str, *arguments: object) -> None:
    """Waits until the expression holds on the page."""
    script = f"return {script.strip()}"
    WebDriverWait(driver, 10).until(lambda d: d.execute_script(script, *arguments))


def scroll_to(driver: WebDriver, element: WebElement) -> None:
    driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_page(driver: WebDriver, address: str, page: str, width: int, theme: str) -> None:
    open_page(driver, address, page, width, theme)
    chrome.settle(driver)

    errors = [each for each in driver.get_log("browser") if each["level"] == "SEVERE"]
    assert not errors
    foreign = [each for each in chrome.requests_made(driver) if not each.startswith(address)]
    assert not foreign
    # A phone zooms out until an overflowing page fits, so its own idea of the width says nothing.
    wide = driver.execute_script(
        """
        const over = document.documentElement.scrollWidth - arguments[0];
        return over <= 0 ? [] : [over, ...[...document.querySelectorAll("main *")]
          .filter((each) => each.getBoundingClientRect().right > arguments[0] + 1)
          .slice(0, 5).map((each) => each.outerHTML.slice(0, 120))];
        """,
        width,
    )
    assert not wide
    undrawn = driver.execute_script(
        """
        return [...document.querySelectorAll(".sami-figure")]
          .filter((each) => each.offsetParent &&
            !("drawn" in each.dataset && each.querySelector(".main-svg")))
          .map((each) => each.getAttribute("aria-label"));
        """
    )
    assert not undrawn
    # Figures are as wide as the column and stand on the page's own background.
    odd = driver.execute_script(
        """
        const page = getComputedStyle(document.body).backgroundColor;
        return [...document.querySelectorAll(".sami-figure .sami-plot")]
          .filter((plot) => plot.offsetParent)
          .map((plot) => {
            const svg = plot.querySelector(".main-svg");
            return [svg.style.background, page, svg.clientWidth, plot.clientWidth];
          })
          .filter(([paper, page, drawn, room]) => paper !== page || Math.abs(drawn - room) > 1);
        """
    )
    assert not odd


def test_maths_is_set_and_readable_aloud(driver: WebDriver, address: str, page: str) -> None:
    open_page(driver, address, page, 1280)
    if not driver.find_elements(By.CSS_SELECTOR, ".math"):
        pytest.skip("a page without maths")
    chrome.settle(driver)
    counts = driver.execute_script(
        """
        return [".math", ".math mjx-container > svg", ".math mjx-assistive-mml", "[data-mjx-error]"]
          .map((each) => document.querySelectorAll(each).length);
        """
    )
    assert counts[0] <= counts[1] == counts[2]
    assert counts[3] == 0


def test_the_theme_button_redraws_figures(driver: WebDriver, address: str, page: str) -> None:
    open_page(driver, address, page, 1280)
    chrome.settle(driver)
    script = """
        [...document.querySelectorAll(".sami-plot")].filter((each) => each.offsetParent)
          .every((plot) => plot._fullLayout.paper_bgcolor === arguments[0])
    """
    wait(driver, script, "#ffffff")
    button = driver.find_element(By.CSS_SELECTOR, ".theme-switch-button")
    for _ in range(3):  # auto, dark, light, in an order that depends on the system's theme
        button.click()
        if driver.execute_script("return document.documentElement.dataset.theme") == "dark":
            break
    wait(driver, script, "#14181e")
    chrome.set_theme(driver, "light")
    wait(driver, script, "#ffffff")


def test_sliders_work_and_survive_the_theme(driver: WebDriver, address: str, page: str) -> None:
    open_page(driver, address, page, 1280)
    chrome.settle(driver)
    rails = driver.find_elements(By.CSS_SELECTOR, ".sami-plot .slider-rail-touch-rect")
    if not rails:
        pytest.skip("a page without sliders")
    rail = rails[0]
    state = """
        const plot = arguments[0].closest(".sami-plot");
        const {active = 0, steps} = plot.layout.sliders[0];
        return [active, JSON.stringify(plot.data), active / (steps.length - 1)];
    """
    before = driver.execute_script(state, rail)
    scroll_to(driver, rail)
    aside = rail.rect["width"] / 4 * (1 if before[2] < 0.5 else -1)  # away from where it stands
    ActionChains(driver).move_to_element_with_offset(rail, int(aside), 0).click().perform()
    WebDriverWait(driver, 10).until(lambda d: d.execute_script(state, rail)[1] != before[1])
    chosen = driver.execute_script(state, rail)[0]
    assert chosen != before[0]

    plot = rail.find_element(By.XPATH, "ancestor::div[contains(@class, 'sami-plot')]")
    chrome.set_theme(driver, "dark")
    wait(driver, "arguments[0]._fullLayout.paper_bgcolor === '#14181e'", plot)
    assert driver.execute_script("return arguments[0].layout.sliders[0].active", plot) == chosen
    chrome.set_theme(driver, "light")


def test_hovering_tells_values(driver: WebDriver, address: str, page: str) -> None:
    open_page(driver, address, page, 1280)
    chrome.settle(driver)
    layers = driver.find_elements(By.CSS_SELECTOR, ".sami-plot .draglayer .nsewdrag")
    layers = [each for each in layers if each.is_displayed()]
    if not layers:
        pytest.skip("a page without figures")
    for layer in layers:
        plot = layer.find_element(By.XPATH, "ancestor::div[contains(@class, 'sami-plot')]")
        scroll_to(driver, plot)
        # The middle of the longest line or map that answers to the pointer.
        offset = driver.execute_script(
            """
            const [plot, subplot] = arguments;
            const {xaxis, yaxis} = plot._fullLayout._plots[subplot];
            const traces = plot._fullData.filter((each) => each.visible === true &&
              each.xaxis + each.yaxis === subplot &&
              ["scatter", "heatmap"].includes(each.type) &&
              each.hoverinfo !== "skip" && each.x?.length && each.x[0] !== null);
            if (!traces.length) return null;
            const trace = traces.reduce((a, b) => (b.x.length > a.x.length ? b : a));
            const i = Math.floor(trace.x.length / 2);
            const j = trace.type === "heatmap" ? Math.floor(trace.y.length / 2) : i;
            const place = (axis, values, k) =>
              (axis.type === "category" ? axis.c2p(axis.d2c(values[k])) : axis.d2p(values[k])) -
              axis._length / 2;
            return [place(xaxis, trace.x, i), place(yaxis, trace.y, j)].map(Math.round);
            """,
            plot,
            layer.get_attribute("data-subplot"),
        )
        if offset is None:
            continue
        ActionChains(driver).move_to_element_with_offset(layer, *offset).perform()
        WebDriverWait(driver, 10).until(
            lambda d, plot=plot: plot.find_elements(By.CSS_SELECTOR, ".hoverlayer .hovertext")
        )


def test_figures_are_drawn_beside_an_amd_loader(driver: WebDriver, address: str, page: str) -> None:
    loader = driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {"source": "window.define = () => {}; window.define.amd = {};"},
    )
    try:
        open_page(driver, address, page, 1280)
        if not driver.find_elements(By.CSS_SELECTOR, ".sami-figure"):
            pytest.skip("a page without figures")
        chrome.settle(driver)
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", loader)
    drawn, restored = driver.execute_script(
        """
        const figures = [...document.querySelectorAll(".sami-figure")];
        return [figures.some((each) => "drawn" in each.dataset), "amd" in window.define];
        """
    )
    assert drawn and restored


def test_films_can_be_paused(driver: WebDriver, address: str, page: str) -> None:
    open_page(driver, address, page, 400)
    films = driver.find_elements(By.CSS_SELECTOR, "figure:has(picture)")
    if not films:
        pytest.skip("a page without films")
    for film in films:
        button = film.find_element(By.CSS_SELECTOR, ".sami-film-button")
        picture = film.find_element(By.CSS_SELECTOR, "img")
        scroll_to(driver, picture)
        wait(driver, "arguments[0].complete && arguments[0].currentSrc", picture)
        assert button.text == "Pause"
        assert "-poster." not in picture.get_property("currentSrc")
        driver.execute_script("arguments[0].click()", button)
        wait(driver, "arguments[0].currentSrc.includes('-poster.')", picture)
        assert button.text == "Play"


def test_search_finds_a_word(driver: WebDriver, address: str) -> None:
    open_page(driver, address, "search.html?q=skill", 1280)
    WebDriverWait(driver, 10).until(
        lambda d: d.find_elements(By.CSS_SELECTOR, "#search-results li a[href*='book/']")
    )
    errors = [each for each in driver.get_log("browser") if each["level"] == "SEVERE"]
    assert not errors


def test_the_front_door_leads_to_the_welcome_page(driver: WebDriver, address: str) -> None:
    open_page(driver, address, "index.html", 1280)
    WebDriverWait(driver, 10).until(lambda d: d.current_url == f"{address}/book/welcome.html")
