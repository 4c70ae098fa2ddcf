"""The whole book as one PDF, printed from the built pages by Chromium.

    python scripts/make_pdf.py [--site _build/html] [--out FILE] [--only NAME ...]

Pages stand in the order of _toc.yml, with bookmarks for parts, chapters and sections, and are
numbered throughout. Links between pages of the book lead to the very place in the PDF. Figures are
as they are at first sight: a slider or a menu does not work on paper, and a film is its poster.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import yaml
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Destination, NameObject
from selenium.webdriver.remote.webdriver import WebDriver
from tqdm import tqdm

from sami_tutorial.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "browser"))
from chrome import browser, programs, serve, set_theme, set_width, settle  # noqa: E402

NAME = "skill-aware-mutual-information.pdf"
PAPER, MARGIN = (8.27, 11.69), 0.55  # A4 and its margin, in inches
FOOTER = "font: 8px sans-serif; color: #555; text-align: center; margin: 0; padding-top: 11.3in"


def reading_order(toc: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The book's parts with their pages, as addresses inside the site."""
    parts = [("", [f"{toc['root']}.html"])]
    for part in toc["parts"]:
        pages = [f"{chapter['file']}.html" for chapter in part["chapters"]]
        parts.append((part["caption"], pages))
    return parts


def printed(driver: WebDriver, address: str) -> bytes:
    """One page of the site as a PDF, with all of its figures drawn."""
    # On the paper's width from the start: a figure keeps the width that it was drawn with.
    set_width(driver, round((PAPER[0] - 2 * MARGIN) * 96))
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.get(address)
    settle(driver)
    # Loading waits until a picture is near the screen, which paper has not.
    driver.execute_async_script(
        """
        const done = arguments[0];
        const pictures = [...document.images];
        for (const each of pictures) each.loading = "eager";
        Promise.allSettled(pictures.map((each) => each.decode())).then(done);
        """
    )
    # Chromium notes where an element is only if its own page links to it; other pages do, too.
    driver.execute_script(
        """
        for (const each of document.querySelectorAll("main [id]")) {
          const link = document.createElement("a");
          link.href = "#" + each.id;
          link.hidden = true;
          document.body.append(link);
        }
        """
    )
    return on_paper(driver, MARGIN, generateDocumentOutline=True, generateTaggedPDF=True)


def on_paper(driver: WebDriver, margin: float, **options: bool) -> bytes:
    """What the browser shows, as a PDF."""
    size = {"paperWidth": PAPER[0], "paperHeight": PAPER[1], "printBackground": True}
    margins = {f"margin{side}": margin for side in ("Top", "Bottom", "Left", "Right")}
    result = driver.execute_cdp_cmd("Page.printToPDF", size | margins | options)
    return base64.b64decode(result["data"])


def footers(driver: WebDriver, lines: list[str]) -> bytes:
    """A sheet for each line, with nothing on it but the line at its foot."""
    sheets = [
        f'<p style="{FOOTER}; break-after: {"page" if lines[n + 1 :] else "auto"}">{escape(line)}'
        for n, line in enumerate(lines)
    ]
    driver.get("about:blank")
    driver.execute_script("document.body.style.margin = 0; document.body.innerHTML = arguments[0]",
                          "".join(sheets))  # fmt: skip
    return on_paper(driver, 0)


def put_below(book: PdfWriter, content: bytes) -> None:
    """Lays the sheets of another document over those of the book, one on each."""
    for sheet, over in zip(book.pages, PdfReader(io.BytesIO(content)).pages, strict=True):
        sheet.merge_page(over)
        sheet.compress_content_streams()  # merging left them six times as long


def heading(reader: PdfReader, fallback: str) -> tuple[str, list[tuple[str, int]]]:
    """A page's title, and its sections with their page numbers, from Chromium's outline."""
    titles: list[tuple[int, str, int]] = []

    def walk(items: list[Any], level: int) -> None:
        for item in items:
            if isinstance(item, list):
                walk(item, level + 1)
            else:
                number = reader.get_destination_page_number(item) or 0
                titles.append((level, str(item.title), number))

    walk(reader.outline, 0)
    if not titles:
        return fallback, []
    top = titles[0][0]
    return titles[0][1], [(text, number) for level, text, number in titles[1:] if level == top + 1]


def place_of(writer: PdfWriter, reader: PdfReader, start: int, goal: Destination) -> list[Any]:
    """Where a named place of a printed page is in the whole document: its sheet and the spot."""
    number = start + (reader.get_destination_page_number(goal) or 0)
    return [writer.pages[number].indirect_reference, *goal.dest_array[1:]]


def resolve_names(writer: PdfWriter, reader: PdfReader, start: int) -> None:
    """Makes links inside one printed page say where they lead, as every page has its "references".

    Args:
        writer: the whole document so far; changed in place.
        reader: the printed page, the last one that was appended.
        start: number of its first sheet in the whole document.
    """
    for sheet in writer.pages[start:]:
        for note in sheet.get("/Annots") or ():
            name = note.get_object().get("/Dest")
            if not isinstance(name, str):
                continue
            place = place_of(writer, reader, start, reader.named_destinations[name])
            note.get_object()[NameObject("/Dest")] = ArrayObject(place)


def merge(parts: list[tuple[str, list[tuple[str, bytes]]]], address: str) -> PdfWriter:
    """One document of the printed pages, with bookmarks, its links pointing into itself.

    Args:
        parts: caption of each part, and the address inside the site and the PDF of its pages.
        address: where the site was served when it was printed.
    """
    writer = PdfWriter()
    first: dict[str, list[Any]] = {}  # address inside the site -> the top of its first sheet
    places: dict[str, list[Any]] = {}  # the same with a fragment -> that place
    for caption, pages in parts:
        parent = None
        for page, content in pages:
            reader = PdfReader(io.BytesIO(content))
            start = len(writer.pages)
            writer.append(reader, import_outline=False)
            first[page] = [writer.pages[start].indirect_reference, NameObject("/Fit")]
            for name, goal in reader.named_destinations.items():
                # Chromium's names are name objects, whose slash is no part of the name.
                places[f"{page}#{name.removeprefix('/')}"] = place_of(writer, reader, start, goal)
            resolve_names(writer, reader, start)
            if caption and parent is None:
                parent = writer.add_outline_item(title=caption, page_number=start)
            title, sections = heading(reader, Path(page).stem)
            chapter = writer.add_outline_item(title=title, page_number=start, parent=parent)
            for section, number in sections:
                writer.add_outline_item(
                    title=section, page_number=start + number, parent=chapter, is_open=False
                )
    for page in writer.pages:
        for note in page.get("/Annots") or ():
            action = note.get_object().get("/A")
            if action is None or "/URI" not in action:
                continue
            uri = str(action["/URI"])
            if not uri.startswith(address):
                continue
            inside = uri.removeprefix(f"{address}/")
            place = places.get(inside) or first.get(urldefrag(inside).url)
            del note.get_object()[NameObject("/A")]
            if place is not None:
                note.get_object()[NameObject("/Dest")] = ArrayObject(place)
    writer.root_object.pop("/Names", None)  # no link needs them any more
    writer.add_metadata({"/Title": "Skill-aware Mutual Information from Scratch"})
    return writer


def main() -> int:
    """Print and merge; exit status 1 if that cannot be done here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, help=f"file to write (SITE/{NAME})")
    parser.add_argument("--only", nargs="+", default=[], help="only pages with this in their name")
    given = parser.parse_args()
    out = given.out or given.site / NAME
    if programs() is None:
        print("Chromium and ChromeDriver are needed; install both and try again", file=sys.stderr)
        return 1
    parts = reading_order(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    chosen = [
        (caption, [page for page in pages if not given.only or any(o in page for o in given.only)])
        for caption, pages in parts
    ]
    missing = [page for _, pages in chosen for page in pages if not (given.site / page).exists()]
    if missing:
        print(f"{given.site} has no {missing}; run `make book` first", file=sys.stderr)
        return 1
    total = sum(len(pages) for _, pages in chosen)
    with serve(given.site) as address, browser() as driver, tqdm(total=total, unit="page") as bar:
        driver.get(f"{address}/search.html")
        set_theme(driver, "light")
        done = []
        for caption, pages in chosen:
            files = []
            for page in pages:
                files.append((page, printed(driver, f"{address}/{page}")))
                bar.update()
            done.append((caption, files))
        book = merge(done, address)
        lines: list[str] = []
        for page, file in (each for _, files in done for each in files):
            reader = PdfReader(io.BytesIO(file))
            title, _ = heading(reader, Path(page).stem)
            lines += [f"{title} \u00b7 {len(lines) + n + 1}" for n in range(len(reader.pages))]
        put_below(book, footers(driver, lines))
    book.compress_identical_objects()
    content = io.BytesIO()
    book.write(content)
    write_whole(out, content.getvalue())
    print(f"{out}: {len(book.pages)} pages, {out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
