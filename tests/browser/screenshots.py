"""Screenshots of built pages, whole or by the screen, in both widths and themes.

Usage: python tests/browser/screenshots.py OUT [PAGE ...] [--width 1280 400] [--theme light dark]
                                           [--screens] [--site _build/html]

PAGE is a path inside the site, such as book/welcome.html; without any, all pages are taken.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from chrome import HEIGHT, browser, serve, set_theme, set_width, settle
from selenium.webdriver.remote.webdriver import WebDriver

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"


def take(driver: WebDriver, out: Path, name: str, screens: bool) -> None:
    """One image of the page, or one per screenful."""
    width, height = driver.execute_script("return [innerWidth, document.body.scrollHeight]")
    if not screens:
        set_width(driver, width, height)
        settle(driver)
        driver.save_screenshot(str(out / f"{name}.png"))
        set_width(driver, width)
        return
    for i, top in enumerate(range(0, height, HEIGHT)):
        driver.execute_script("scrollTo({top: arguments[0], behavior: 'instant'})", top)
        driver.save_screenshot(str(out / f"{name}-{i:02d}.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--width", type=int, nargs="+", default=[1280, 400])
    parser.add_argument("--theme", nargs="+", choices=("light", "dark"), default=["light", "dark"])
    parser.add_argument("--screens", action="store_true", help="one image per screenful")
    parser.add_argument("--site", type=Path, default=SITE)
    given = parser.parse_args()
    pages = given.pages or [
        path.relative_to(given.site).as_posix() for path in sorted(given.site.glob("book/*.html"))
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    with serve(given.site) as address, browser() as driver:
        driver.get(f"{address}/search.html")
        for theme in given.theme:
            set_theme(driver, theme)
            for width in given.width:
                set_width(driver, width)
                for page in pages:
                    driver.get(f"{address}/{page}")
                    settle(driver)
                    take(driver, given.out, f"{Path(page).stem}-{width}-{theme}", given.screens)


if __name__ == "__main__":
    main()
