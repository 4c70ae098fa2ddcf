"""The films of a figure's dots in a real browser: by pointing, by touch, by keyboard, at rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("selenium")

import chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.browser
PAGE = "book/13_what_the_embedding_knows.html"
ROOM = ".sami-thumbnail"
PATIENCE = 20  # seconds, on a machine that has other work


class Dots:
    """A figure whose dots have films, and the room for a film under it."""

    def __init__(self, driver: WebDriver, address: str, width: int) -> None:
        self.driver = driver
        chrome.open_page(driver, f"{address}/{PAGE}", width, "light")
        self.room = driver.find_element(By.CSS_SELECTOR, ROOM)
        self.prompt = self.words
        self.first_height = self.room.rect["height"]
        self.figure = self.room.find_element(By.XPATH, "preceding-sibling::figure")
        self.see(self.figure)
        self.until("'drawn' in arguments[0].dataset", self.figure)
        self.until("arguments[0].querySelector('select')", self.room)
        self.plot = self.figure.find_element(By.CSS_SELECTOR, ".sami-plot")
        self.films = driver.execute_script("return arguments[0].layout.meta.films.each", self.plot)

    def see(self, element: WebElement) -> None:
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element
        )

    def until(self, condition: str, *arguments: object) -> None:
        WebDriverWait(self.driver, PATIENCE, 0.05).until(
            lambda d: d.execute_script(f"return {condition}", *arguments)
        )

    @property
    def words(self) -> str:
        return self.room.find_element(By.TAG_NAME, "p").text

    @property
    def list(self) -> Select:
        return Select(self.room.find_element(By.TAG_NAME, "select"))

    def dot(self) -> tuple[str, float, float]:
        """The film of a dot that no other covers, and the dot's place on the screen."""
        return self.driver.execute_script(
            """
            const [plot] = arguments;
            const {xaxis, yaxis} = plot._fullLayout;
            const area = plot.querySelector(".nsewdrag").getBoundingClientRect();
            const dots = plot.data.filter((each) => each.visible !== false).flatMap((trace) =>
              trace.customdata.map((name, i) =>
                [name, area.x + xaxis.d2p(trace.x[i]), area.y + yaxis.d2p(trace.y[i])]));
            const room = ([, x, y]) => Math.min(...dots.map(([, u, v]) => Math.hypot(x - u, y - v))
              .filter((distance) => distance > 0));
            return dots.reduce((a, b) => (room(b) > room(a) ? b : a));
            """,
            self.plot,
        )

    def drawn(self) -> dict[str, str]:
        """Label -> name of the films of the dots that are drawn."""
        names = self.driver.execute_script(
            "return arguments[0].data.filter((each) => each.visible !== false)"
            ".flatMap((each) => each.customdata ?? [])",
            self.plot,
        )
        return {self.films[name]["label"]: name for name in names}

    def choose_from_menu(self, k: int) -> None:
        """Draws other dots, as the k-th entry of the figure's menu does."""
        self.driver.execute_script(
            "Plotly.restyle(arguments[0], "
            "...arguments[0].layout.updatemenus[0].buttons.at(arguments[1]).args)",
            self.plot,
            k,
        )

    def shows(self, name: str, ending: str = ".webp") -> None:
        """The film is loaded and seen, with its own words, and nothing else has moved."""
        image = self.room.find_element(By.TAG_NAME, "img")
        self.until("arguments[0].currentSrc.endsWith(arguments[1])", image, f"/{name}{ending}")
        self.until("arguments[0].complete && arguments[0].naturalWidth === 240", image)
        self.until("getComputedStyle(arguments[0]).visibility === 'visible'", image)
        assert self.words == self.films[name]["caption"]
        assert image.get_attribute("alt") == f"Film: {self.films[name]['label']}"
        assert self.list.first_selected_option.text == self.films[name]["label"]
        assert self.room.rect["height"] == self.first_height


def films_fetched(driver: WebDriver) -> list[str]:
    paths = [Path(urlsplit(each).path) for each in chrome.requests_made(driver)]
    return [path.name for path in paths if path.parent.name == "thumbnails"]


@pytest.fixture
def emulated(driver: WebDriver) -> Iterator[WebDriver]:
    """A browser whose emulation of touch and preferences ends with the test."""
    yield driver
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_pointing_at_a_dot_shows_its_film(driver: WebDriver, address: str) -> None:
    dots = Dots(driver, address, 1280)
    assert dots.words == dots.prompt
    assert not films_fetched(driver)
    name, x, y = dots.dot()
    area = dots.plot.find_element(By.CSS_SELECTOR, ".nsewdrag")
    left, top = driver.execute_script(
        "const box = arguments[0].getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]",
        area,
    )
    ActionChains(driver).move_to_element_with_offset(
        area, round(x - left), round(y - top)
    ).perform()
    dots.shows(name)
    assert films_fetched(driver) == [f"{name}.webp"]
    dots.room.find_element(By.CSS_SELECTOR, ".sami-film-button").click()
    dots.shows(name, "-poster.webp")
    assert not chrome.errors(driver)


def test_a_tap_shows_a_film_on_a_telephone(emulated: WebDriver, address: str) -> None:
    emulated.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    dots = Dots(emulated, address, 400)
    name, x, y = dots.dot()
    touch = {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}
    emulated.execute_cdp_cmd("Input.dispatchTouchEvent", touch)
    lift = {"type": "touchEnd", "touchPoints": []}
    emulated.execute_cdp_cmd("Input.dispatchTouchEvent", lift)
    dots.shows(name)
    assert films_fetched(emulated) == [f"{name}.webp"]
    assert dots.room.rect["x"] >= 0
    assert dots.room.rect["x"] + dots.room.rect["width"] <= 400
    assert not chrome.errors(emulated)


def test_the_keyboard_chooses_a_task_and_another_policy_keeps_it(
    driver: WebDriver, address: str
) -> None:
    dots = Dots(driver, address, 1280)
    offered = [option.text for option in dots.list.options][1:]
    assert len(offered) == 15 and set(offered) == dots.drawn().keys()
    dots.room.find_element(By.TAG_NAME, "select").send_keys(Keys.ARROW_DOWN)
    first = dots.drawn()[offered[0]]
    dots.shows(first)
    dots.choose_from_menu(1)
    second = dots.drawn()[offered[0]]
    assert second != first
    dots.shows(second)
    dots.choose_from_menu(-1)  # a body without films
    dots.until("arguments[0].querySelector('select').disabled", dots.room)
    assert not dots.drawn() and dots.words == dots.prompt


def test_who_prefers_no_motion_gets_the_still(emulated: WebDriver, address: str) -> None:
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    emulated.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": still})
    dots = Dots(emulated, address, 1280)
    dots.list.select_by_index(1)
    name = dots.drawn()[dots.list.first_selected_option.text]
    dots.shows(name, "-poster.webp")
    assert films_fetched(emulated) == [f"{name}-poster.webp"]
