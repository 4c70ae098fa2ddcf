"""Reading aids in a real browser: definitions, quizzes, figures' addresses, downloads."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("selenium")

import chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

pytestmark = pytest.mark.browser
PAGE = "book/05_infonce.html"


@pytest.mark.parametrize("width", [400, 1280])
def test_a_definition_opens_by_keyboard_and_closes_by_escape(
    driver: WebDriver, address: str, width: int
) -> None:
    chrome.set_width(driver, width)
    driver.get(f"{address}/{PAGE}")
    link = driver.find_element(By.CSS_SELECTOR, ".sami-term > a")
    definition = driver.find_element(By.ID, link.get_attribute("aria-describedby"))
    assert not definition.is_displayed()
    driver.execute_script("arguments[0].focus()", link)
    assert definition.is_displayed() and len(definition.text) > 20
    box = definition.rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    link.send_keys(Keys.ESCAPE)
    assert not definition.is_displayed()
    driver.execute_script("arguments[0].blur(); arguments[0].focus()", link)
    assert definition.is_displayed()


def test_a_choice_opens_by_keyboard_and_says_why(driver: WebDriver, address: str) -> None:
    driver.get(f"{address}/{PAGE}")
    choice = driver.find_element(By.CSS_SELECTOR, "details.choice")
    why = choice.find_element(By.TAG_NAME, "p")
    assert not why.is_displayed()
    choice.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert why.is_displayed() and why.text.startswith(("Right.", "Wrong."))
    assert len(driver.find_elements(By.CSS_SELECTOR, "details.choice[open]")) == 1


def test_the_index_leads_to_every_figure(site) -> None:
    index = (site / "book" / "figure_index.html").read_text(encoding="utf-8")
    found = re.findall(r'href="(\w+\.html)#(figure-\d+)"', index)
    assert len(found) > 50
    for page, name in found:
        assert f'id="{name}"' in (site / "book" / page).read_text(encoding="utf-8"), (page, name)


def test_a_notebook_can_be_downloaded_from_its_page(site) -> None:
    pages = sorted((site / "book").glob("[0-9]*.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        link = re.search(r'<a href="([^"]+\.ipynb)"[^>]*download-source-button', text)
        assert link, page.name
        assert (page.parent / link[1]).resolve().is_file()
