"""Every page in a real browser: quiet, local, drawn, no wider than the screen, light and dark.

A page is loaded once at each width, and the tests run in the order in which they stand here: from
looking at it as it comes to changing its theme and, last, taking its pictures out for axe-core.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("selenium")

import chrome
from accessibility import (
    ALL_BUT_COLORS,
    COLORS,
    NARROW,
    leave_marked_texts,
    mark_texts,
    plain_code,
    prepare,
    violations,
)
from conftest import Loaded
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.browser

PAPER = {"light": "#ffffff", "dark": "#14181e"}
OTHER = {"light": "dark", "dark": "light"}
PATIENCE = 20  # seconds, on a machine that has other work


def wait(driver: WebDriver, script: str, *arguments: object) -> None:
    """Waits until the expression holds on the page."""
    script = f"return {script.strip()}"
    WebDriverWait(driver, PATIENCE, 0.05).until(lambda d: d.execute_script(script, *arguments))


def scroll_to(driver: WebDriver, element: WebElement) -> None:
    driver.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element
    )


def faults_of_layout(driver: WebDriver, width: int) -> list[object]:
    """What is wider than the screen, is not drawn, or does not fit its column or its theme."""
    # A phone zooms out until an overflowing page fits, so its own idea of the width says nothing.
    return driver.execute_script(
        """
        const over = document.documentElement.scrollWidth - arguments[0];
        const wide = over <= 0 ? [] : [over, ...[...document.querySelectorAll("main *")]
          .filter((each) => each.getBoundingClientRect().right > arguments[0] + 1)
          .slice(0, 5).map((each) => each.outerHTML.slice(0, 120))];
        const figures = [...document.querySelectorAll(".sami-figure")]
          .filter((each) => each.offsetParent);
        const isDrawn = (each) => "drawn" in each.dataset && each.querySelector(".main-svg");
        const undrawn = figures.filter((each) => !isDrawn(each))
          .map((each) => each.getAttribute("aria-label"));
        // Figures are as wide as the column and stand on the page's own background.
        const page = getComputedStyle(document.body).backgroundColor;
        const odd = figures.filter(isDrawn).map((each) => {
          const plot = each.querySelector(".sami-plot");
          const svg = plot.querySelector(".main-svg");
          return [svg.style.background, page, svg.clientWidth, plot.clientWidth];
        }).filter(([paper, page, drawn, room]) => paper !== page || Math.abs(drawn - room) > 1);
        return [...wide, ...undrawn, ...odd];
        """,
        width,
    )


def hidden_words(driver: WebDriver) -> list[object]:
    """Words of figures that end outside of it, or that a menu covers, each with the figure's."""
    return driver.execute_script(
        """
        const seen = (each) => each.getBoundingClientRect().width > 1;
        const boxes = (plot, selector) => [...plot.querySelectorAll(selector)].filter(seen)
          .map((each) => [each.textContent, each.getBoundingClientRect()]);
        return [...document.querySelectorAll(".sami-plot")].flatMap((plot) => {
          const outer = plot.getBoundingClientRect();
          const menus = boxes(plot, ".updatemenu-header rect");
          const isCut = ([, box]) =>
            Math.max(outer.left - box.left, box.right - outer.right) > 2 ||
            Math.max(outer.top - box.top, box.bottom - outer.bottom) > 2;
          const isCovered = ([, box]) => menus.some(([, menu]) =>
            Math.min(box.right, menu.right) - Math.max(box.left, menu.left) > 2 &&
            Math.min(box.bottom, menu.bottom) - Math.max(box.top, menu.top) > 2);
          return [
            ...boxes(plot, "svg text").filter(isCut),
            ...boxes(plot, ".legend .traces text, .annotation text").filter(isCovered),
          ].map(([words]) => [plot.parentElement.getAttribute("aria-label").slice(0, 60), words]);
        });
        """
    )


def test_page_is_quiet_and_fits(loaded: Loaded) -> None:
    assert not loaded.listen()
    assert not faults_of_layout(loaded.driver, loaded.width)
    assert not hidden_words(loaded.driver)


@pytest.mark.seen(containing='class="math')
def test_maths_is_set_and_readable_aloud(loaded: Loaded) -> None:
    counts = loaded.driver.execute_script(
        """
        return [".math", ".math mjx-container > svg", ".math mjx-assistive-mml", "[data-mjx-error]"]
          .map((each) => document.querySelectorAll(each).length);
        """
    )
    assert 0 < counts[0] <= counts[1] == counts[2]
    assert counts[3] == 0


@pytest.mark.seen(containing="-poster.webp", width=400)
def test_films_can_be_paused(loaded: Loaded) -> None:
    driver = loaded.driver
    films = driver.find_elements(By.CSS_SELECTOR, "figure:has(picture)")
    assert films
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


@pytest.mark.seen(containing='class="sami-figure"', width=1280)
def test_hovering_tells_values(loaded: Loaded) -> None:
    driver = loaded.driver
    layers = driver.find_elements(By.CSS_SELECTOR, ".sami-plot .draglayer .nsewdrag")
    layers = [each for each in layers if each.is_displayed()]
    assert layers
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
        wait(driver, "arguments[0].querySelector('.hoverlayer .hovertext')", plot)


# The position of a plot's slider, its last position, and what the plot shows.
SLIDER = """
    const {data, layout} = arguments[0].closest(".sami-plot");
    const {active = 0, steps} = layout.sliders[0];
    return [active, steps.length - 1, JSON.stringify(data)];
"""


def sliders(driver: WebDriver) -> list[WebElement]:
    rails = driver.find_elements(By.CSS_SELECTOR, ".sami-plot .slider-rail-touch-rect")
    return [each for each in rails if each.rect["width"]]  # they are clear, so never "displayed"


@pytest.mark.seen(containing='"sliders":')
def test_sliders_change_the_data(loaded: Loaded) -> None:
    driver = loaded.driver
    rails = sliders(driver)
    assert rails
    for rail in rails:
        active, last, data = driver.execute_script(SLIDER, rail)
        scroll_to(driver, rail)
        aside = rail.rect["width"] / 4 * (1 if active < last / 2 else -1)  # away from where it is
        ActionChains(driver).move_to_element_with_offset(rail, int(aside), 0).click().perform()
        WebDriverWait(driver, PATIENCE, 0.05).until(
            lambda d, rail=rail, data=data: d.execute_script(SLIDER, rail)[2] != data
        )
        assert driver.execute_script(SLIDER, rail)[0] != active


def test_the_theme_button_redraws_and_keeps_what_was_chosen(loaded: Loaded) -> None:
    driver, other = loaded.driver, OTHER[loaded.theme]
    chosen = [driver.execute_script(SLIDER, rail)[0] for rail in sliders(driver)]
    button = driver.find_element(By.CSS_SELECTOR, ".theme-switch-button")
    for _ in range(3):  # auto, dark, light, in an order that depends on the system's theme
        driver.execute_script("arguments[0].click()", button)
        if driver.execute_script("return document.documentElement.dataset.theme") == other:
            break
    wait(
        driver,
        """
        [...document.querySelectorAll(".sami-plot")].filter((each) => each.offsetParent)
          .every((plot) => plot._fullLayout?.paper_bgcolor === arguments[0])
        """,
        PAPER[other],
    )
    assert [driver.execute_script(SLIDER, rail)[0] for rail in sliders(driver)] == chosen
    assert not faults_of_layout(driver, loaded.width)
    assert not loaded.listen()


def test_axe_finds_no_serious_violation(loaded: Loaded) -> None:
    """On a telephone only of what depends on the width: each rule takes its time."""
    driver = loaded.driver
    prepare(driver)
    if loaded.width < 600:
        plain_code(driver)
        assert not violations(driver, NARROW)
        return
    for theme in PAPER:
        chrome.set_theme(driver, theme)
        mark_texts(driver)
    plain_code(driver)
    assert not violations(driver, ALL_BUT_COLORS)
    leave_marked_texts(driver)
    for theme in PAPER:
        chrome.set_theme(driver, theme)
        assert not violations(driver, COLORS), theme


def test_figures_are_drawn_beside_an_amd_loader(
    driver: WebDriver, address: str, site: Path
) -> None:
    """On one page: the script that draws is the same for all of them."""
    page = next(
        path
        for path in sorted(site.glob("book/*.html"), key=lambda each: each.stat().st_size)
        if all(each in path.read_text() for each in ('class="sami-figure"', 'class="math'))
    )
    loader = driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {"source": "window.define = () => {}; window.define.amd = {};"},
    )
    try:
        chrome.open_page(driver, f"{address}/book/{page.name}", 1280, "light")
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


@pytest.mark.parametrize(
    ("word", "chapter"), [("InfoNCE", "05_infonce"), ("skill", "01_tasks_and_skills")]
)
def test_search_finds_a_word(driver: WebDriver, address: str, word: str, chapter: str) -> None:
    chrome.open_page(driver, f"{address}/search.html?q={word}", 1280, "light")
    wait(
        driver,
        "document.querySelector(arguments[0])",
        f"#search-results li a[href*='book/{chapter}.html']",
    )
    assert not chrome.errors(driver)


def test_the_front_door_leads_to_the_welcome_page(driver: WebDriver, address: str) -> None:
    chrome.open_page(driver, f"{address}/index.html", 1280, "light")
    wait(driver, "location.href === arguments[0]", f"{address}/book/welcome.html")
