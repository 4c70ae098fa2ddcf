"""What the tests of the built book share: the site, its pages, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob("book/*.html"))
ASSIGNMENTS = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob("book/*/*.html"))
NO_SITE = "the book is not built: run `make book` first"
# A screen in the light theme, a telephone in the dark one; a test changes the theme of both.
FIRST_THEME = {1280: "light", 400: "dark"}
LOADS = [(page, width) for page in PAGES for width in FIRST_THEME]


@dataclass
class Loaded:
    """A page in the browser, loaded once for all the tests that look at it."""

    driver: WebDriver
    address: str
    page: str
    width: int
    theme: str
    noise: list[str] = field(default_factory=list)

    def listen(self) -> list[str]:
        """Errors and requests to other sites since the page began to load."""
        import chrome

        self.noise += chrome.errors(self.driver)
        requests = chrome.requests_made(self.driver)
        self.noise += [each for each in requests if not each.startswith(self.address)]
        return self.noise


def name_of(load: tuple[str, int]) -> str:
    """``("book/welcome.html", 400)`` in the names of tests: ``welcome-400``."""
    return f"{Path(load[0]).stem}-{load[1]}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that ask for ``page`` read every file; those that ask for ``loaded`` see every page.

    The latter share one load of a page at a width, which is what takes time: they run one after
    the other, in one process, and leave the assignments out. The mark ``seen`` limits them to
    pages whose HTML holds a text, or to one width. Without a built book they are skipped.
    """
    skipped = [pytest.param("", marks=pytest.mark.skip(reason=NO_SITE))]
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", [*PAGES, *ASSIGNMENTS] or skipped)
    if "loaded" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("seen")
        wanted = mark.kwargs if mark else {}
        text, only = wanted.get("containing", ""), wanted.get("width")
        loads = [
            load
            for load in LOADS
            if only in (None, load[1]) and text in (SITE / load[0]).read_text(encoding="utf-8")
        ]
        if PAGES and not loads:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: no page contains {text!r}")
        params = [pytest.param(load, id=name_of(load)) for load in loads]
        metafunc.parametrize("loaded", params or skipped, indirect=True, scope="module")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one load stand together: pytest's own order is by place in each test's list."""

    def load(item: pytest.Item) -> int:
        given = getattr(item, "callspec", None)
        given = given.params.get("loaded") if given else None
        return LOADS.index(given) if given else -1

    items.sort(key=load)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one load go to one process (`pytest -n 2`), each of the others to any."""
    from xdist.scheduler import LoadScopeScheduling

    loads = {f"[{name_of(load)}]" for load in LOADS}

    class ByLoad(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((each for each in loads if nodeid.endswith(each)), nodeid)

    return ByLoad(config, log)


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


@pytest.fixture(scope="module")
def loaded(driver: WebDriver, address: str, request: pytest.FixtureRequest) -> Loaded:
    import chrome

    page, width = request.param
    theme = FIRST_THEME[width]
    chrome.open_page(driver, f"{address}/{page}", width, theme)
    chrome.settle(driver)
    return Loaded(driver, address, page, width, theme)
