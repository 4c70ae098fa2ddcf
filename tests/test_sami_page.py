"""The page's Sphinx extension: what it makes of a figure, and what it refuses."""

from __future__ import annotations

import json
import logging
import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("myst_nb")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book" / "_ext"))
import sami_page

from sami_tutorial import figures

SPITEFUL = '</script><b title="x">&amp;</b><!--'


class Markup(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts[self.tags[-1][0]] = data


def rendered(metadata: dict) -> tuple[str, list[str]]:
    """The HTML of a figure whose output carries this metadata, and the warnings."""
    warnings: list[str] = []
    logger = SimpleNamespace(warning=lambda message, **_: warnings.append(message))
    data, _ = figures.bundle(figures.new_figure(SPITEFUL, "b", height=321), alt="unused")
    given = SimpleNamespace(
        mime_type=figures.PLOTLY_MIME,
        content=data[figures.PLOTLY_MIME],
        output_metadata=metadata,
        line=7,
    )
    nodes = sami_page.PlotlyRenderer.handle_mime(SimpleNamespace(logger=logger), given, False)
    return nodes[0].astext(), warnings


def test_a_figure_keeps_its_json_and_its_alternative():
    text, warnings = rendered({figures.PLOTLY_MIME: {"alt": SPITEFUL}})
    assert not warnings
    markup = Markup(text)
    assert [tag for tag, _ in markup.tags] == ["figure", "div", "script", "noscript", "p"]
    assert markup.tags[0][1] == {"class": "sami-figure", "role": "img", "aria-label": SPITEFUL}
    assert markup.tags[1][1]["style"] == "min-height:321px"
    figure = json.loads(markup.texts["script"])
    assert figure["layout"]["xaxis"]["title"]["text"] == SPITEFUL
    assert "template" not in figure["layout"]
    assert figure["config"]["displaylogo"] is False


def test_a_figure_without_alternative_warns():
    _, warnings = rendered({})
    assert len(warnings) == 1 and "text alternative" in warnings[0]


def test_dots_with_films_leave_room_for_one_and_every_film_is_there(tmp_path):
    figure = figures.new_figure("a", "b").add_scatter(y=[1], customdata=["hop"])
    films = {"hop": figures.DotFilm("task", "Hops.")}
    figures.add_films(figure, films, folder="_static/films", prompt="Point < here.")
    data, metadata = figures.bundle(figure, alt="A dot.")
    warnings: list[str] = []
    logger = SimpleNamespace(warning=lambda message, **_: warnings.append(message))
    renderer = SimpleNamespace(logger=logger, source=str(tmp_path / "page.ipynb"))
    given = SimpleNamespace(
        mime_type=figures.PLOTLY_MIME,
        content=data[figures.PLOTLY_MIME],
        output_metadata=metadata,
        line=7,
    )
    folder = tmp_path / "_static" / "films"
    folder.mkdir(parents=True)
    (folder / "hop.webp").touch()
    text = sami_page.PlotlyRenderer.handle_mime(renderer, given, False)[0].astext()
    assert warnings == ["there is no file _static/films/hop-poster.webp"]
    (folder / "hop-poster.webp").touch()
    sami_page.PlotlyRenderer.handle_mime(renderer, given, False)
    assert len(warnings) == 1
    # Outside the figure, which is one picture to a screen reader.
    figure_ends = text.index("</figure>") + len("</figure>")
    assert text[figure_ends:].startswith('<div class="sami-thumbnail" role="group"')
    assert text.endswith("<p>Point &lt; here.</p></div>")
    assert not any(tag == "img" for tag, _ in Markup(text).tags)  # nothing to fetch yet
    assert finish(tmp_path, text)[1][-2:] == ["films.js", "thumbnails.js"]


def test_other_mime_types_are_left_alone():
    given = SimpleNamespace(mime_type="text/html")
    assert sami_page.PlotlyRenderer.handle_mime(None, given, False) is None


def finish(tmp_path, body: str) -> tuple[str, list[str]]:
    """A page's body after the extension, and the scripts it loads."""
    scripts: list[str] = []
    app = SimpleNamespace(
        srcdir=tmp_path,
        config=SimpleNamespace(html_static_path=["static"]),
        add_js_file=scripts.append,
    )
    context = {"body": body, "pathto": lambda name, resource: f"../{name}"}
    sami_page.finish_page(app, "book/page", "page.html", context, None)
    return context["body"], scripts


def test_files_named_in_html_are_found(tmp_path, caplog):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "a.webp").touch()
    with caplog.at_level(logging.WARNING):
        body, scripts = finish(tmp_path, '<img src="_static/a.webp"><code>src="_other"</code>')
    assert body == '<img src="../_static/a.webp"><code>src="_other"</code>'
    assert not scripts and not caplog.records


def test_a_missing_file_warns(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(sami_page.LOGGER, "warning", lambda *args, **_: warnings.append(args))
    finish(tmp_path, '<source srcset="_static/gone-poster.webp">')
    assert warnings == [("there is no file _static/%s", "gone-poster.webp")]


def test_scripts_load_only_where_they_are_used(tmp_path):
    assert finish(tmp_path, '<figure class="sami-figure">')[1] == ["figure-style.js", "figures.js"]
    assert finish(tmp_path, "<p>figure</p>")[1] == []


def test_a_changed_static_file_makes_a_page_be_written(tmp_path):
    config = SimpleNamespace(html_static_path=["static"], root_doc="book/welcome")
    app = SimpleNamespace(srcdir=tmp_path, outdir=tmp_path / "out", config=config)
    source, copy = tmp_path / "static" / "a" / "b.css", tmp_path / "out" / "_static" / "a" / "b.css"
    for file in (source, copy):
        file.parent.mkdir(parents=True)
        file.touch()

    def stale() -> list[str]:
        return sami_page.stale_pages(app, None, set(), set(), set())

    os.utime(copy, (2000, 2000))
    os.utime(source, (2000, 2000))
    assert stale() == []
    os.utime(source, (2001, 2001))
    assert stale() == ["book/welcome"]
    copy.unlink()
    assert stale() == ["book/welcome"]


def test_a_doi_is_looked_up_and_not_followed_to_its_publisher():
    doi = "10.1080/00031305.1999.10474445"
    asked = sami_page.ask_the_register(None, f"https://doi.org/{doi}")
    assert asked == f"https://doi.org/api/handles/{doi}"
    assert sami_page.ask_the_register(None, "https://example.org/doi.org/10.1") is None
