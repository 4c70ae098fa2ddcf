"""The built site as files: links resolve, nothing comes from elsewhere, pictures have words."""

from __future__ import annotations

import functools
import gzip
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from conftest import ROOT

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.browser

LIMIT = 1_500_000
"""Bytes of a page's own: its text, packed as servers send it, and its pictures and films."""

# Attributes that make a browser fetch something as soon as it reads the page.
FETCHED = {"script": "src", "img": "src", "source": "srcset", "video": "src", "iframe": "src"}


class Page(HTMLParser):
    """The elements of a page, each as (tag, attributes), and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.anchors = {named["id"] for _, named in self.elements if "id" in named}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [named for name, named in self.elements if name == tag]


read = functools.cache(Page)


def test_internal_links_resolve(site: Path, page: str) -> None:
    broken = []
    for tag, named in read(site / page).elements:
        link = named.get("href") or named.get("src") or named.get("srcset") or ""
        parts = urlsplit(link)
        if not link or parts.scheme or parts.netloc:
            continue
        target = (site / page).parent / unquote(parts.path) if parts.path else site / page
        if not target.is_file():
            broken.append((tag, link))
        elif parts.fragment and target.suffix == ".html":
            if unquote(parts.fragment) not in read(target.resolve()).anchors:
                broken.append((tag, link))
    assert not broken


def test_nothing_comes_from_another_site(site: Path) -> None:
    foreign = []
    for path in site.rglob("*.html"):
        page = read(path)
        links = [named.get(FETCHED[tag], "") for tag, named in page.elements if tag in FETCHED]
        links += [
            named.get("href", "") for named in page.all("link") if named.get("rel") != "canonical"
        ]
        foreign += [(path.name, link) for link in links if urlsplit(link).netloc]
    assert not foreign


def test_a_page_is_light(site: Path, page: str) -> None:
    """Scripts, styles and fonts are those of all pages, and fetched once."""
    path = site / page
    links = {named["src"] for named in read(path).all("img") if "src" in named}
    pictures = {(path.parent / unquote(urlsplit(link).path)).resolve() for link in links}
    weight = len(gzip.compress(path.read_bytes())) + sum(each.stat().st_size for each in pictures)
    assert weight < LIMIT


def test_formulas_are_set(site: Path, page: str) -> None:
    """Those that a cell displays, too: none is left as it was typed."""
    text = (site / page).read_text(encoding="utf-8")
    for taken in (
        r"<(script|style|pre|code)\b.*?</\1>",
        r'<(span|div) class="math\b.*?</\1>',
        r"<[^>]*>",
    ):
        text = re.sub(taken, "", text, flags=re.DOTALL)
    assert not re.findall(r"\$[^$\n]+\$", text)


def test_pictures_and_figures_have_words(site: Path, page: str) -> None:
    parsed = read(site / page)
    # The header's logo and launch icons stand beside their words, so they carry none.
    beside_words = ("logo__image", "/images/logo_")
    silent = [
        named
        for named in parsed.all("img")
        if not named.get("alt", "").strip()
        and not any(each in str(named.values()) for each in beside_words)
    ]
    silent += [
        named
        for named in parsed.all("figure")
        if "sami-figure" in named.get("class", "") and len(named.get("aria-label", "")) < 20
    ]
    assert not silent


def test_launch_source_and_download_buttons_name_the_file(site: Path, page: str) -> None:
    """Notebooks have all of them; pages that only read have no launch buttons."""
    notebook = Path(page).with_suffix(".ipynb").as_posix()
    file = notebook if (ROOT / notebook).is_file() else Path(page).with_suffix(".md").as_posix()
    repository = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    home, branch = repository["url"].rstrip("/"), repository["branch"]
    name = home.removeprefix("https://github.com/")
    links = {named["href"] for named in read(site / page).all("a") if "href" in named}

    colab = {link for link in links if link.startswith("https://colab.research.google.com/")}
    binder = [link for link in links if link.startswith("https://mybinder.org/")]
    if file == notebook:
        assert colab == {
            f"https://colab.research.google.com/github/{name}/blob/{branch}/{notebook}"
        }
        assert [urlsplit(link).path for link in binder] == [f"/v2/gh/{name}/{branch}"]
        assert parse_qs(urlsplit(binder[0]).query)["urlpath"] == [f"lab/tree/{notebook}"]
    else:
        assert not colab and not binder
    assert (ROOT / file).is_file()
    assert any(link.startswith(f"{home}/blob/{branch}/{file}") for link in links)
    assert f"{'../' * page.count('/')}_sources/{file}" in links
    assert (site / "_sources" / file).read_bytes() == (ROOT / file).read_bytes()
