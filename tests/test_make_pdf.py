"""The PDF of the whole book: its links lead to the page that they name."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("selenium")

from make_pdf import merge, put_below
from pypdf import PdfReader, PdfWriter
from pypdf.annotations import Link
from pypdf.generic import (
    ArrayObject,
    DecodedStreamObject,
    DictionaryObject,
    NameObject,
)

SITE = "http://127.0.0.1:1"
PLACE = (0, 0, 10, 10)


def printed(sheets: int, section_at: int, leads_to: str) -> bytes:
    """A page as Chromium prints it, with the name "references" and links to it and to a page."""
    writer = PdfWriter()
    for _ in range(sheets):
        writer.add_blank_page(100, 100)
    writer.add_outline_item(title="A chapter", page_number=0)
    spot = [writer.pages[section_at].indirect_reference, NameObject("/Fit")]
    dests = DictionaryObject({NameObject("/references"): ArrayObject(spot)})
    writer.root_object[NameObject("/Dests")] = dests  # as Chromium does it
    inside = Link(rect=PLACE, target_page_index=0)
    inside[NameObject("/Dest")] = NameObject("/references")
    writer.add_annotation(page_number=0, annotation=inside)
    outside = Link(rect=PLACE, url=leads_to)
    writer.add_annotation(page_number=0, annotation=outside)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def goals(book: PdfWriter) -> list[tuple[int, int | str]]:
    """Each link's sheet, and the sheet or address that it leads to."""
    out = io.BytesIO()
    book.write(out)
    sheets = PdfReader(io.BytesIO(out.getvalue())).pages
    number = {sheet.indirect_reference.idnum: i for i, sheet in enumerate(sheets)}
    found: list[tuple[int, int | str]] = []
    for i, sheet in enumerate(sheets):
        for note in sheet.get("/Annots") or ():
            link: DictionaryObject = note.get_object()
            if "/Dest" in link:
                found.append((i, number[link["/Dest"].get_object()[0].idnum]))
            else:
                found.append((i, str(link["/A"]["/URI"])))
    return found


def test_every_page_has_its_own_references_and_links_between_pages_stay_inside():
    first = printed(3, 2, f"{SITE}/book/b.html#part")
    second = printed(2, 1, "https://example.org/")
    parts = [("", [("book/a.html", first)]), ("Part", [("book/b.html", second)])]
    assert goals(merge(parts, SITE)) == [(0, 2), (0, 3), (3, 4), (3, "https://example.org/")]


def test_a_link_to_a_place_on_another_page_leads_to_its_sheet():
    first = printed(3, 2, f"{SITE}/book/b.html#references")
    second = printed(2, 1, f"{SITE}/book/a.html")
    parts = [("", [("book/a.html", first)]), ("Part", [("book/b.html", second)])]
    assert goals(merge(parts, SITE)) == [(0, 2), (0, 4), (3, 4), (3, 0)]


def test_every_sheet_gets_its_own_footer():
    book = merge([("", [("book/a.html", printed(2, 1, "https://example.org/"))])], SITE)
    over = PdfWriter()
    for width in (50, 60):  # told apart by a box that only this sheet draws
        sheet = over.add_blank_page(100, 100)
        drawing = DecodedStreamObject()
        drawing.set_data(f"0 0 {width} 5 re f".encode())
        sheet[NameObject("/Contents")] = over._add_object(drawing)
    out = io.BytesIO()
    over.write(out)
    put_below(book, out.getvalue())
    assert all("/Filter" in sheet["/Contents"].get_object() for sheet in book.pages)  # compressed
    drawn = [sheet.get_contents().get_data() for sheet in book.pages]
    assert [b"0 0 50 5 re" in each for each in drawn] == [True, False]
    assert [b"0 0 60 5 re" in each for each in drawn] == [False, True]
    over.add_blank_page(100, 100)
    out = io.BytesIO()
    over.write(out)
    with pytest.raises(ValueError, match="zip"):
        put_below(book, out.getvalue())
