"""What the tests of the built book share: the site, its pages, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob("book/*.html"))
ASSIGNMENTS = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob("book/*/*.html"))
NO_SITE = "the book is not built: run `make book` first"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that ask for ``page`` run on every page; without a built book they are skipped.

    Those that drive a browser, which takes time, leave the assignments out.
    """
    if "page" in metafunc.fixturenames:
        skipped = pytest.param("", marks=pytest.mark.skip(reason=NO_SITE))
        pages = PAGES if "driver" in metafunc.fixturenames else [*PAGES, *ASSIGNMENTS]
        metafunc.parametrize("page", pages or [skipped])


@pytest.fixture(scope="session")
def site() -> Path:
    if not PAGES:
        pytest.skip(NO_SITE)
    return SITE


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    pytest.importorskip("selenium")
    import chrome

    with chrome.serve(site) as address:
        yield address


@pytest.fixture(scope="session")
def driver(address: str) -> Iterator[WebDriver]:
    import chrome

    if chrome.programs() is None:
        pytest.skip("Chromium and ChromeDriver are not both installed")
    with chrome.browser() as driver:
        yield driver
