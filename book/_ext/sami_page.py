"""Sphinx extension of the book's page: Plotly figures, and files that raw HTML refers to.

Jupyter Book knows no renderer for Plotly's MIME type and would leave such outputs out. Here each
becomes a ``<figure>`` with its text alternative and its JSON, drawn by ``_static/figures.js`` with
one copy of plotly.js that is taken from the installed plotly package. Neither needs another site.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import myst_nb.core.render as myst_nb_render
import plotly
from docutils import nodes
from ipython_pygments_lexers import IPython3Lexer
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from sami_tutorial.figures import PLOTLY_MIME, films_of, page_style

LOGGER = logging.getLogger(__name__)
DEFAULT_HEIGHT = 450
STATIC_ADDRESS = re.compile(r'\b(src|srcset|poster|href)="_static/([^"]*)"')


class PlotlyRenderer:
    """MyST-NB's protocol for rendering one MIME type."""

    mime_priority_overrides = (("*", PLOTLY_MIME, 1),)

    @staticmethod
    def handle_mime(
        renderer: myst_nb_render.NbElementRenderer, data: myst_nb_render.MimeData, inline: bool
    ) -> list[nodes.Node] | None:
        """The figure as HTML; None for other MIME types. Warns about a missing alternative."""
        if data.mime_type != PLOTLY_MIME or inline:
            return None
        alt = data.output_metadata.get(PLOTLY_MIME, {}).get("alt", "")
        if not alt:
            renderer.logger.warning(
                "a Plotly figure has no text alternative; show it with sami_tutorial.figures.show",
                subtype="plotly",
                line=data.line,
            )
        for file in missing_films(data.content["layout"], renderer):
            renderer.logger.warning(f"there is no file {file}", subtype="plotly", line=data.line)
        return [nodes.raw("", figure_html(data.content, alt), format="html")]


def missing_films(
    layout: dict[str, Any], renderer: myst_nb_render.NbElementRenderer
) -> Iterator[str]:
    """Names of the films and stills of a figure's dots that are not there."""
    films = films_of(layout)
    for name in films.get("each", ()):
        for file in (f"{films['folder']}/{name}.webp", f"{films['folder']}/{name}-poster.webp"):
            if not (Path(renderer.source).parent / file).is_file():
                yield file


def figure_html(content: dict[str, Any], alt: str) -> str:
    """The figure's markup: a place to draw in, its JSON without a template, its alternative.

    Where its dots have films, room for one of them follows; it is no part of the figure, which is
    one picture to a screen reader. ``thumbnails.js`` fills it.
    """
    layout = {key: value for key, value in content["layout"].items() if key != "template"}
    figure = {"data": content["data"], "layout": layout, "config": content.get("config", {})}
    if content.get("frames"):
        figure["frames"] = content["frames"]
    # Escaping "<" keeps "</script>" and "<!--" in a label from ending the element.
    text = json.dumps(figure, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    label = html.escape(alt)
    height = layout.get("height", DEFAULT_HEIGHT)
    films = films_of(layout)
    room = ""
    if films:
        room = (
            '<div class="sami-thumbnail" role="group" aria-label="Films of the dots above">'
            f"<p>{html.escape(films['prompt'])}</p></div>"
        )
    return (
        f'<figure class="sami-figure" role="img" aria-label="{label}">'
        f'<div class="sami-plot" style="min-height:{height}px"></div>'
        f'<script type="application/json">{text}</script>'
        f"<noscript><p>{label}</p></noscript></figure>{room}"
    )


def register_renderer() -> None:
    """Adds the renderer to MyST-NB's list, which otherwise holds only installed entry points."""
    installed = myst_nb_render.load_mime_renders
    myst_nb_render.load_mime_renders = lambda: [*installed(), PlotlyRenderer]


def write_assets(app: Sphinx) -> None:
    """plotly.js, and the templates and shades that figures.js draws with."""
    if app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    static.mkdir(parents=True, exist_ok=True)
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    shutil.copyfile(script, static / "plotly.min.js")
    style = json.dumps(page_style(), separators=(",", ":"))
    (static / "figure-style.js").write_text(f"window.samiFigureStyle={style};\n", encoding="utf-8")


def stale_pages(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """The front page if a static file changed: Sphinx copies them only when it writes pages."""
    for folder in app.config.html_static_path:
        source = Path(app.srcdir, folder)
        for file in source.rglob("[!.]*"):
            copy = Path(app.outdir, "_static", file.relative_to(source))
            if file.is_file() and (
                not copy.exists() or copy.stat().st_mtime < file.stat().st_mtime
            ):
                return [app.config.root_doc]
    return []


def finish_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Loads scripts where there are figures and films, finds files named in HTML, mends roles.

    Notebooks name files of book/_static relative to themselves, which is where Jupyter looks for
    them. On the page they lie in the site's own _static folder.
    """
    body = context.get("body")
    if not body:
        return
    if 'class="sami-figure"' in body:
        app.add_js_file("figure-style.js")
        app.add_js_file("figures.js")
    dots_have_films = 'class="sami-thumbnail"' in body
    if '-poster.webp"' in body or dots_have_films:
        app.add_js_file("films.js")
    if dots_have_films:
        app.add_js_file("thumbnails.js")

    def on_page(match: re.Match[str]) -> str:
        name = match[2]
        folders = [Path(app.srcdir, folder) for folder in app.config.html_static_path]
        if not any((folder / name).is_file() for folder in folders):
            LOGGER.warning("there is no file _static/%s", name, location=pagename)
        return f'{match[1]}="{context["pathto"]("_static/" + name, 1)}"'

    body = STATIC_ADDRESS.sub(on_page, body)
    # A list's children must be list items, and a summary's own words are its best label.
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    context["body"] = body


def ask_the_register(app: Sphinx, uri: str) -> str | None:
    """For `make linkcheck`: a DOI is looked up where DOIs are registered, and not followed.

    Many publishers answer every program with "403 Forbidden", whether or not the page is there.
    """
    home = "https://doi.org/"
    return f"{home}api/handles/{uri.removeprefix(home)}" if uri.startswith(home) else None


def setup(app: Sphinx) -> dict[str, Any]:
    register_renderer()
    # Code cells may hold %magics and !commands, which plain Python's lexer would warn about.
    app.add_lexer("python", IPython3Lexer)
    app.add_js_file("scrollers.js")
    app.connect("builder-inited", write_assets)
    app.connect("env-get-outdated", stale_pages)
    app.connect("html-page-context", finish_page)
    app.connect("linkcheck-process-uri", ask_the_register)
    # Raised when the markup changes, so that pages from an older build are read again.
    return {"version": "1", "env_version": 3, "parallel_read_safe": True}
