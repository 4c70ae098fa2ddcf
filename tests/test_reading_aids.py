"""The aids of every numbered chapter, and the pages for looking things up."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import nbformat
import notebook_status
import pytest
import yaml

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
sys.path.append(str(BOOK / "_ext"))
import reading_aids  # noqa: E402

NOTEBOOKS = reading_aids.notebooks(ROOT)
CHAPTERS = [path for path in NOTEBOOKS if path.stem[0].isdigit()]
LOOKED_UP = ("which_chapter", "glossary", "notation", "figure_index", "library_map", "status",
             "bibliography")  # fmt: skip
ENDING = ["What can go wrong", "Check yourself", "Exercises", "Summary", "Further reading",
          "References"]  # fmt: skip
GLOSSARY = reading_aids.read_glossary((BOOK / "glossary.md").read_text(encoding="utf-8"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def markdown(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


def sections(path: Path) -> dict[str, str]:
    """Heading -> text of the chapter's second level."""
    text = re.sub(r"```.*?```", lambda m: m[0].replace("\n#", "\n\0"), "\n\n".join(markdown(path)),
                  flags=re.DOTALL)  # fmt: skip
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return {head: body.replace("\0", "#") for head, body in zip(parts[::2], parts[1::2])}  # noqa: B905


def exercises(path: Path) -> list[tuple[re.Match[str], str]]:
    """Head and text of every exercise."""
    text = sections(path)["Exercises"]
    heads = list(re.finditer(r"^\*\*(\d+)\. .+?\*\* \((easy|medium|hard), (\d+) minutes[^)]*\)\. ",
                             text, re.MULTILINE))  # fmt: skip
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return [(head, text[head.end() : end]) for head, end in zip(heads, ends, strict=True)]


# ---- chapters ----


@each_chapter
def test_a_chapter_begins_with_what_it_gives_and_what_it_takes(path):
    front = markdown(path)[0]
    objectives = front.split("**You will be able to**\n\n")[1].split("\n\n")[0]
    assert 3 <= len(re.findall(r"^- ", objectives, re.MULTILINE)) <= 6
    assert re.search(r"^\*\*Before you start:\*\* .{20}", front, re.MULTILINE)
    time = re.search(
        r"^\*\*Difficulty:\*\* (easy|medium|hard)\. \*\*Time:\*\* about (\d+) minutes? to read, "
        r"(\d+) to compute, (\d+) for the exercises\.$",
        front,
        re.MULTILINE,
    )
    assert time
    assert int(time[4]) == sum(int(head[3]) for head, _ in exercises(path))
    assert int(time[3]) <= 3


@each_chapter
def test_a_chapter_ends_in_the_same_six_sections(path):
    assert list(sections(path))[-6:] == ENDING


@each_chapter
def test_a_pitfall_has_a_symptom_and_a_cure(path):
    items = re.split(r"^- ", sections(path)["What can go wrong"], flags=re.MULTILINE)[1:]
    assert 3 <= len(items) <= 6
    for item in items:
        assert item.startswith(("**", "$")), item
        assert item.count("*Symptom:*") == item.count("*Cure:*") == 1, item


@each_chapter
def test_a_quiz_explains_every_choice(path):
    parts = re.split(r"^\*\*(\d)\.\*\* ", sections(path)["Check yourself"], flags=re.MULTILINE)
    assert parts[1::2] == list("12345")
    right = []
    for question in parts[2::2]:
        choices = re.findall(
            r'^<details class="choice">\n<summary>([A-E])\. ([^\n]+)</summary>\n\n'
            r"\*\*(Right|Wrong)\.\*\* (.+?)\n\n</details>$",
            question,
            re.MULTILINE | re.DOTALL,
        )
        # What does not have this form would be folded by mistake, or not at all.
        assert len(choices) == question.count("<details") == question.count("</details>")
        assert [letter for letter, *_ in choices] == list("ABCDE"[: len(choices)])
        assert 3 <= len(choices) <= 5
        assert all(len(why) > 30 for *_, why in choices)
        # A page leaves formulas and emphasis inside <summary> as they are typed.
        assert not any(set(text) & set("$*") for _, text, *_ in choices)
        answers = [letter for letter, _, verdict, _ in choices if verdict == "Right"]
        assert len(answers) == 1
        right += answers
    assert len(set(right)) > 1


@each_chapter
def test_an_exercise_says_how_hard_it_is_and_shows_whether_an_answer_holds(path):
    found = exercises(path)
    assert [int(head[1]) for head, _ in found] == list(range(1, len(found) + 1))
    assert len(found) >= 3
    for head, text in found:
        task, solution = text.split("<details>\n<summary>Solution</summary>")
        assert "**Check.** " in task, head[0]
        assert len(solution) > 100
        for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            ast.parse(code)


@each_chapter
def test_further_reading_cites(path):
    text = sections(path)["Further reading"]
    keys = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(), re.MULTILINE))
    cited = set(re.findall(r"\{cite:t\}`([^`]+)`", text))
    assert len(cited) >= 2 and cited <= keys


# ---- glossary ----


def test_every_link_to_the_glossary_resolves_and_every_entry_is_used():
    used = set()
    for path in NOTEBOOKS:
        links = re.findall(r"\(glossary\.md#([^)]+)\)", "\n".join(markdown(path)))
        assert len(links) == len(set(links)), f"{path.stem}: a term is linked at its first use only"
        assert set(links) <= GLOSSARY.keys(), path.stem
        assert len(links) >= 3 or path not in CHAPTERS, path.stem
        used |= set(links)
    assert used == GLOSSARY.keys()


def test_the_glossary_is_sorted_and_its_definitions_are_plain_and_short():
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    names = [name.lower().replace("-", " ") for name in re.findall(r"^### (.+)$", text, re.M)]
    assert names == sorted(names)
    assert len(names) == len(GLOSSARY) >= 80
    for definition in GLOSSARY.values():
        assert 20 < len(definition) < 330
        assert not set(definition) & set("$`[]_"), definition


def test_a_link_carries_its_definition():
    link = '<a class="reference internal" href="glossary.html#a-term"><span>a term</span></a>'
    other = '<a class="reference internal" href="page.html#a-term">x</a>'
    body = reading_aids.with_definitions(f"{link}{other}{link}", {"a-term": 'one & "two"'})
    assert body.count(other) == 1
    assert body.count("one &amp; &quot;two&quot;") == 2
    for number in (1, 2):
        described = f'<a aria-describedby="definition-{number}" class="reference internal"'
        assert body.count(described) == body.count(f'role="tooltip" id="definition-{number}"') == 1


def test_a_link_to_no_entry_stays_as_it_is():
    link = '<a class="reference internal" href="glossary.html#gone">x</a>'
    assert reading_aids.with_definitions(link, {"a-term": "text"}) == link


# ---- notation ----


def exists(name: str) -> bool:
    """Whether ``module.Class.field``, ``module.f`` or ``module.f(argument)`` is in the library."""
    path, _, argument = name.rstrip(")").partition("(")
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module("sami_tutorial." + ".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if part in getattr(found, "__dataclass_fields__", ()):
                return not argument
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return not argument or argument in inspect.signature(found).parameters
    return False


def test_the_notations_code_exists():
    rows = re.findall(r"^\| \$.*\|$", (BOOK / "notation.md").read_text(encoding="utf-8"), re.M)
    names = [name for row in rows for name in re.findall(r"`([\w.()]+)`", row)]
    assert len(names) >= 40
    assert [name for name in names if not exists(name)] == []
    assert not exists("sac.SACConfig.gone") and not exists("contrastive.sance(gone)")


# ---- pages that the build makes ----


def notebook(path: Path, *cells: str, figure_in: tuple[int, ...]) -> Path:
    """A notebook of code cells; those named have a figure among their outputs."""
    made = []
    for number, source in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source)
        if number in figure_in:
            mime = reading_aids.PLOTLY_MIME
            alt = {mime: {"alt": f"figure of cell {number}"}}
            cell.outputs = [nbformat.v4.new_output("display_data", {mime: {}}, metadata=alt)]
        made.append(cell)
    films = path.parent / reading_aids.FILMS
    films.parent.mkdir(parents=True, exist_ok=True)
    films.write_text('{"files": {}}')
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


MANIFEST = {name: {"command": f"make {name}"} for name in ("one", "two", "seed/0", "seed/1")}


@pytest.mark.parametrize(
    "cells, command",
    [
        (["x = load_table('one')", "show(x)"], "one"),
        (["x = 1", "show(x)"], ""),
        (["x = load_table('one')\ny = x + 1\nx = 2", "show(y)"], "one"),
        (["x = load_table('one')", "x = 2", "show(x)"], ""),
        (["x = []\nfor i in load_table('one'):\n    x.append(i)", "show(x)"], "one"),
        (["x = {}\nx['a'] = load_table('one')", "show(x)"], "one"),
        (["def f(k):\n    return load_bytes(f'seed/{k}')", "show(f('1'))"], "seed/1"),
        (["def f(k):\n    return load_bytes(f'seed/{k}')", "show(f(k))"], "seed/0 seed/1"),
        (["def f():\n    return load_table('two')", "show(1)"], ""),
        (["x = load_table('one')\ndef f():\n    x = 1\n    return x", "show(f())"], ""),
        (["x = load_table('one')\ndef f(n):\n    return f(n - 1) + x", "show(f(2))"], "one"),
        (["import figures\nfigures.add(load_table('one'))", "figures.show(1)"], ""),
    ],
)
def test_a_figures_command_is_that_of_the_data_behind_it(tmp_path, cells, command):
    path = notebook(tmp_path / "n.ipynb", *cells, figure_in=(len(cells) - 1,))
    expected = [f"make {name}" for name in command.split()]
    alt = f"figure of cell {len(cells) - 1}"
    assert list(reading_aids.figures_of(path, MANIFEST)) == [(alt, expected)]


def test_a_figures_commands_are_those_of_its_dots_films_too(tmp_path):
    path = notebook(tmp_path / "n.ipynb", "show(load_table('one'))", figure_in=(0,))
    films = tmp_path / "_static" / "thumbnails" / "manifest.json"
    films.parent.mkdir()
    made = {"a.webp": {"command": "film a"}, "b.webp": {"command": "film b"}}
    films.write_text(json.dumps({"files": made}))
    whole = nbformat.read(path, as_version=4)
    of_dots = {"folder": "_static/thumbnails", "each": {"a": {}}}
    whole.cells[0].outputs[0].data[reading_aids.PLOTLY_MIME] = {
        "layout": {"meta": {"films": of_dots}}
    }
    nbformat.write(whole, path)
    found = list(reading_aids.figures_of(path, MANIFEST))
    assert found == [("figure of cell 0", ["film a", "make one"])]


@pytest.fixture(scope="module")
def index() -> str:
    return reading_aids.figure_index(ROOT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_is_in_the_index(path, index):
    manifest = json.loads((ROOT / "data" / "manifest.json").read_text())["files"]
    outputs = [
        output.get("data", {})
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    plots = sum(reading_aids.PLOTLY_MIME in data for data in outputs)
    films = sum(reading_aids.FILM in "".join(data.get("text/html", "")) for data in outputs)
    found = list(reading_aids.figures_of(path, manifest))
    assert len(found) == plots + films
    assert all(len(alt) > 20 for alt, _ in found)
    assert index.count(f'href="{path.stem}.html#figure-') == len(found)


def test_figures_and_films_are_numbered_together():
    body = '<figure class="sami-figure" role="img"><figure class="other"><figure class="sami-film">'
    numbered = reading_aids.number_figures(body)
    assert re.findall(r'class="sami-(\w+)" id="figure-(\d)"', numbered) == [
        ("figure", "1"),
        ("film", "2"),
    ]


def test_a_run_is_recorded_and_a_later_change_of_code_shows(tmp_path):
    book = tmp_path / "book"
    path = notebook(book / "welcome.ipynb", "install = 1", "x = 1", figure_in=())
    (tmp_path / "_toc.yml").write_text("root: book/welcome\nparts: []\n")
    text = nbformat.v4.new_markdown_cell("# First\n\ntext")
    whole = nbformat.read(path, as_version=4)
    whole.cells.insert(0, text)
    nbformat.write(whole, path)
    assert "not recorded" in reading_aids.status(tmp_path)
    notebook_status.record(path, 12.34, 500_000_000)
    table = reading_aids.status(tmp_path)
    assert "| [First](welcome.ipynb) | 12 s | 0.5 GB | unchanged |" in table
    assert f"python {notebook_status.versions()['python']}" in table
    whole.cells[1].source = "install = 2"  # what a fork changes
    whole.cells[0].source += " and more"
    nbformat.write(whole, path)
    assert "unchanged" in reading_aids.status(tmp_path)
    whole.cells[2].source = "x = 2"
    nbformat.write(whole, path)
    assert "| changed |" in reading_aids.status(tmp_path)


def test_the_library_has_floors_and_no_circles():
    source = ROOT / "src" / "sami_tutorial"
    imports = reading_aids.module_imports(source)
    height = {
        name: number for number, layer in enumerate(reading_aids.floors(imports)) for name in layer
    }
    assert height.keys() == {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    assert all(height[need] < height[name] for name in imports for need in imports[name])
    # The floors from the ground up, as the book builds them.
    order = ["nets.py", "sac.py", "replay.py", "sampling.py", "context_sac.py", "agents.py",
             "train.py", "cli.py"]  # fmt: skip
    assert [height[name] for name in order] == sorted({height[name] for name in order})
    assert "envs/__init__.py" in imports["train.py"] and "sac.py" in imports["train.py"]
    table = reading_aids.library_map(ROOT)
    assert all(f"| `{name}` | " in table for name in imports)
    assert "|  |" not in table, "a file has no docstring"


def test_a_circle_of_imports_is_refused():
    with pytest.raises(ValueError, match="circle"):
        reading_aids.floors({"a.py": set(), "b.py": {"c.py"}, "c.py": {"b.py"}})


def test_pages_to_look_things_up_are_in_the_contents_and_made_where_they_say_so():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    assert {f"book/{name}" for name in LOOKED_UP} <= listed
    asked = {
        name: reading_aids.MARKER.findall((BOOK / f"{name}.md").read_text()) for name in LOOKED_UP
    }
    made = {"figure_index": ["figures"], "library_map": ["library"], "status": ["status"]}
    assert {name: found for name, found in asked.items() if found} == made


def test_the_guide_names_every_chapter():
    text = (BOOK / "which_chapter.md").read_text()
    assert [path.stem for path in CHAPTERS if f"({path.name})" not in text] == []


# ---- the book as one PDF ----


def blank(address: str | None = None, pages: int = 2) -> bytes:
    """A PDF of empty pages with an outline, and a link on its first page."""
    import io

    from pypdf import PdfWriter
    from pypdf.annotations import Link

    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(width=200, height=300)
    top = writer.add_outline_item(title="A chapter", page_number=0)
    writer.add_outline_item(title="Its section", page_number=pages - 1, parent=top)
    if address:
        writer.add_annotation(page_number=0, annotation=Link(rect=(0, 0, 9, 9), url=address))
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_pages_become_one_document_with_bookmarks_and_links_into_itself():
    pytest.importorskip("pypdf")
    pytest.importorskip("selenium")
    import make_pdf

    here = "http://127.0.0.1:8000"
    parts = [
        ("", [("book/welcome.html", blank(f"{here}/book/b.html#figure-3"))]),
        ("Part", [("book/a.html", blank("https://example.org/x")), ("book/b.html", blank())]),
    ]
    book = make_pdf.merge(parts, here)
    assert len(book.pages) == 6
    first = book.pages[0]["/Annots"][0].get_object()
    assert "/A" not in first and first["/Dest"][0].get_object() == book.pages[4].get_object()
    elsewhere = book.pages[2]["/Annots"][0].get_object()
    assert elsewhere["/A"]["/URI"] == "https://example.org/x"

    def titles(items: list) -> list:
        return [titles(each) if isinstance(each, list) else each["/Title"] for each in items]

    chapter = ["A chapter", ["Its section"]]
    assert titles(book.outline) == [*chapter, "Part", [*chapter, *chapter]]


def test_the_pdf_has_the_order_of_the_contents():
    pytest.importorskip("pypdf")
    pytest.importorskip("selenium")
    import make_pdf

    toc = {"root": "book/w", "parts": [{"caption": "P", "chapters": [{"file": "book/a"}]}]}
    assert make_pdf.reading_order(toc) == [("", ["book/w.html"]), ("P", ["book/a.html"])]
    assert make_pdf.NAME == reading_aids.PDF
