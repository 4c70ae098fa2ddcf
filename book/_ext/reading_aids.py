"""Sphinx extension of the book's reading aids: definitions over links, and pages that are made.

A link to the glossary shows the term's definition when it is pointed at or reached by the keyboard.
Three pages hold a comment, ``<!-- made by the build: NAME -->``, in whose place the build writes
what the repository holds: the index of figures, the notebooks' last runs, the map of the library.
"""

from __future__ import annotations

import ast
import fnmatch
import html
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import yaml
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from sami_tutorial.figures import PLOTLY_MIME, films_of

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from notebook_status import STATUS, code_hash

LOGGER = logging.getLogger(__name__)
MARKER = re.compile(r"<!-- made by the build: (\w+) -->")
GLOSSARY = "book/glossary"
PDF = "skill-aware-mutual-information.pdf"  # written into the site by scripts/make_pdf.py
LINK = re.compile(
    r'<a class="reference internal" href="(?:glossary\.html)?#([^"]+)">(.*?)</a>', re.S
)
FIGURE = re.compile(r'<figure class="sami-(?:figure|film)"')
FILM = '<figure class="sami-film">'
FILMS = "_static/videos/manifest.json"
STATIC_FILM = re.compile(r'src="_static/videos/([^"]+)"')
SHOWN_VERSIONS = ("python", "torch", "numpy", "gymnasium", "mujoco", "scikit-learn", "umap-learn")


# Definitions over links


def slug(heading: str) -> str:
    """The address of a heading on its page, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def read_glossary(text: str) -> dict[str, str]:
    """Slug -> definition, for every ``###`` entry of the glossary's Markdown."""
    entries = re.split(r"^### (.+)\n", text, flags=re.M)[1:]
    pairs = zip(entries[::2], entries[1::2], strict=True)
    return {slug(name): " ".join(body.split()) for name, body in pairs}


def with_definitions(body: str, definitions: dict[str, str]) -> str:
    """A page's HTML in which every link to the glossary carries its definition."""
    number = 0

    def add(match: re.Match[str]) -> str:
        nonlocal number
        definition = definitions.get(match[1])
        if definition is None:
            return match[0]
        number += 1
        name = f"definition-{number}"
        link = match[0].replace("<a ", f'<a aria-describedby="{name}" ', 1)
        return (
            f'<span class="sami-term">{link}<span class="sami-definition" role="tooltip" '
            f'id="{name}">{html.escape(definition)}</span></span>'
        )

    return LINK.sub(add, body)


def number_figures(body: str) -> str:
    """Gives figures and films an id each, ``figure-1`` and so on, which the index links to."""
    number = 0

    def add(match: re.Match[str]) -> str:
        nonlocal number
        number += 1
        return f'{match[0]} id="figure-{number}"'

    return FIGURE.sub(add, body)


# The index of figures


class DataFlow(ast.NodeVisitor):
    """Which stored files stand behind each name of a notebook, followed statement by statement.

    A file counts for a name if it was loaded by the statement that bound the name or by one that
    bound a name used there. A function counts with what its body loads and uses; a string built
    from its arguments is filled in where the call gives them as plain text.
    """

    def __init__(self) -> None:
        self.files: dict[str, set[str]] = {}  # name -> patterns of stored files
        self.functions: dict[str, ast.FunctionDef] = {}
        self.modules: set[str] = set()

    def behind(
        self,
        tree: ast.AST,
        given: dict[str, str] | None = None,
        inside: frozenset[str] = frozenset(),
    ) -> set[str]:
        """Patterns of the files behind an expression or a statement.

        Args:
            tree: the expression or statement.
            given: arguments of the function that ``tree`` is part of, where they are plain text.
            inside: functions that are being looked into, so that recursion ends.
        """
        found: set[str] = set()
        for node in walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found |= self.files.get(node.id, set())
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ("load_table", "load_bytes") and node.args:
                found.add(pattern(node.args[0], given or {}))
            elif node.func.id in self.functions and node.func.id not in inside:
                function = self.functions[node.func.id]
                names = [each.arg for each in function.args.args]
                texts = {
                    name: value.value
                    for name, value in zip(names, node.args, strict=False)
                    if isinstance(value, ast.Constant) and isinstance(value.value, str)
                }
                found |= self.behind_call(function, texts, inside | {node.func.id})
        return found

    def behind_call(
        self, function: ast.FunctionDef, given: dict[str, str], inside: frozenset[str]
    ) -> set[str]:
        """As ``behind``, for a function's body; its own names hide those of the notebook."""
        local = {each.arg for each in ast.walk(function) if isinstance(each, ast.arg)}
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                local.add(node.id)
        hidden = {name: self.files.pop(name) for name in local & self.files.keys()}
        found = set().union(*(self.behind(each, given, inside) for each in function.body))
        self.files |= hidden
        return found

    def bind(self, target: ast.AST, found: set[str], add: bool) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and node.id not in self.modules:
                old = self.files.get(node.id, set()) if add else set()
                self.files[node.id] = old | found

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.modules |= {(each.asname or each.name).split(".")[0] for each in node.names}

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.functions[node.name] = node
        self.files[node.name] = set()

    def visit_Assign(self, node: ast.Assign) -> None:
        found = self.behind(node.value)
        for target in node.targets:
            # x = ... forgets what x was; x[i] = ... and x.y = ... add to it
            self.bind(target, found, add=isinstance(target, ast.Subscript | ast.Attribute))

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.bind(node.target, self.behind(node.value), add=True)

    def visit_For(self, node: ast.For) -> None:
        self.bind(node.target, self.behind(node.iter), add=False)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """``x.append(y)``: what is behind y is now behind x."""
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            base: ast.AST = call.func
            while isinstance(base, ast.Attribute | ast.Call | ast.Subscript):
                base = base.func if isinstance(base, ast.Call) else base.value
            self.bind(base, self.behind(call), add=True)


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """As ``ast.walk``, without the bodies of functions that are only defined."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.FunctionDef):
            yield from walk(child)


def pattern(node: ast.AST, given: dict[str, str]) -> str:
    """A file's name as written, with ``*`` for what is only known when the code runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(pattern(each, given) for each in node.values)
    if isinstance(node, ast.FormattedValue):
        return pattern(node.value, given)
    if isinstance(node, ast.Name):
        return given.get(node.id, "*")
    return "*"


def figures_of(notebook: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Text alternative and commands of every figure of a notebook, in the page's order.

    The commands are those of the manifest's entries for the stored files that the figure's cell
    uses, and those of the films behind its dots; none, if all of it was computed when the notebook
    ran.
    """
    flow = DataFlow()
    films = json.loads((notebook.parent / FILMS).read_text())["files"]
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code" or "remove-cell" in cell.metadata.get("tags", ()):
            continue
        lines = cell.source.splitlines()
        tree = ast.parse(
            "\n".join(line for line in lines if not line.lstrip().startswith(("!", "%")))
        )
        flow.visit(tree)
        files = flow.behind(tree)
        commands = {
            entry["command"]
            for name, entry in manifest.items()
            if any(fnmatch.fnmatch(name, each) for each in files)
        }
        for output in cell.outputs:
            data = output.get("data", {})
            if PLOTLY_MIME in data:
                shown = films_of(data[PLOTLY_MIME].get("layout", {}))
                yield (
                    output.metadata[PLOTLY_MIME]["alt"],
                    sorted(commands | film_commands(shown, notebook.parent)),
                )
            elif FILM in "".join(data.get("text/html", "")):
                name = STATIC_FILM.search("".join(data["text/html"]))[1]
                yield "".join(data["text/plain"]), [films[name]["command"]]


def film_commands(films: dict[str, Any], book: Path) -> set[str]:
    """What made the films behind a figure's dots, see ``sami_tutorial.figures.films_of``."""
    if not films:
        return set()
    made = json.loads((book / films["folder"] / "manifest.json").read_text())["files"]
    return {made[f"{name}.webp"]["command"] for name in films["each"]}


def title(notebook: Path) -> str:
    first = nbformat.read(notebook, as_version=4).cells[0].source
    return first.splitlines()[0].removeprefix("# ")


def notebooks(root: Path) -> list[Path]:
    """The notebooks in the book's contents, in reading order; assignments have no outputs."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"], *(each["file"] for part in toc["parts"] for each in part["chapters"])]
    paths = [root / f"{name}.ipynb" for name in names if "assignments" not in name]
    return [path for path in paths if path.exists()]


def figure_index(root: Path) -> str:
    """A list of figures for each notebook, as Markdown."""
    manifest = json.loads((root / "data" / "manifest.json").read_text())["files"]
    parts = []
    for path in notebooks(root):
        rows = list(figures_of(path, manifest))
        if not rows:
            continue
        number = path.stem[:2].lstrip("0") if path.stem[0].isdigit() else path.stem[0].upper()
        parts.append(f"## {title(path)}\n")
        for i, (alt, commands) in enumerate(rows, 1):
            source = ", ".join(f"`{each}`" for each in commands) or "computed in the notebook"
            link = f'<a href="{path.stem}.html#figure-{i}">Figure {number}.{i}</a>'
            parts.append(f"- {link}. {html.escape(alt, quote=False)} *From:* {source}.")
        parts.append("")
    return "\n".join(parts)


# The status of the notebooks


def status(root: Path) -> str:
    """A table with the last recorded run of every notebook, as Markdown."""
    file = root / "book" / STATUS
    runs = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows = ["| notebook | run time | memory | code since then |", "|---|---|---|---|"]
    versions: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for path in notebooks(root):
        name = f"[{title(path)}]({path.name})"
        run = runs.get(path.stem)
        if run is None:
            rows.append(f"| {name} | not recorded | | |")
            continue
        same = "unchanged" if run["code"] == code_hash(path) else "changed"
        rows.append(
            f"| {name} | {run['seconds']:.0f} s | {run['peak_bytes'] / 1e9:.1f} GB | {same} |"
        )
        key = tuple((each, run["versions"].get(each, "-")) for each in SHOWN_VERSIONS)
        versions.setdefault((*key, ("on", run["machine"])), []).append(title(path))
    rows += ["", "The versions behind these runs:", ""] if versions else [""]
    for used, titles in versions.items():
        listed = ", ".join(f"{package} {version}" for package, version in used)
        who = "All of them" if len(versions) == 1 else ", ".join(titles)
        rows.append(f"- {who}: {listed}.")
    return "\n".join(rows)


# The map of the library


def module_imports(source: Path) -> dict[str, set[str]]:
    """File -> the files of the library that it imports, both as ``envs/cube.py``."""
    files = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*.py"))}

    def file_of(parts: list[str]) -> str | None:
        path = "/".join(parts)
        for name in (f"{path}.py", f"{path}/__init__.py" if path else "__init__.py"):
            if name in files:
                return name
        return None

    imports: dict[str, set[str]] = {}
    for name, path in files.items():
        imports[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            package, *parts = node.module.split(".")
            if package != source.name:
                continue
            for each in node.names:
                found = file_of([*parts, each.name]) or file_of(parts)
                # "from sami_tutorial import __version__" asks for no file of its own
                if found and found != name and found != "__init__.py":
                    imports[name].add(found)
    return imports


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """The files in layers: each imports only from layers below its own.

    Raises:
        ValueError: if some files import each other in a circle.
    """
    left, layers, done = dict(imports), [], set()
    while left:
        layer = sorted(name for name, needs in left.items() if needs <= done)
        if not layer:
            raise ValueError(f"these files import each other in a circle: {sorted(left)}")
        layers.append(layer)
        done |= set(layer)
        left = {name: needs for name, needs in left.items() if name not in done}
    return layers


def library_map(root: Path) -> str:
    """One table for each floor of the library, as Markdown."""
    source = root / "src" / "sami_tutorial"
    imports = module_imports(source)
    parts = []
    for height, layer in enumerate(floors(imports)):
        head = ["| file | what it is | imports |", "|---|---|---|"]
        if height == 0:
            head = ["| file | what it is |", "|---|---|"]
        parts += [f"## Floor {height}", "", *head]
        for name in layer:
            text = (source / name).read_text(encoding="utf-8")
            first = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
            row = f"| `{name}` | {' '.join(first.split()).replace('``', '`')} |"
            if imports[name]:
                row += f" {', '.join(f'`{each}`' for each in sorted(imports[name]))} |"
            parts.append(row)
        parts.append("")
    return "\n".join(parts)


# The extension

MAKERS = {"figures": figure_index, "status": status, "library": library_map}


def fill_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Writes what a page's comment asks for in the comment's place."""
    if not docname.startswith("book/") or Path(app.env.doc2path(docname)).suffix != ".md":
        return
    source[0] = MARKER.sub(lambda match: MAKERS[match[1]](Path(app.srcdir)), source[0])


def made_pages(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """The pages with such a comment, as what they are made of may have changed without them.

    And the front page if there is a PDF, which it links to.
    """
    pages = (Path(env.doc2path(name)) for name in env.found_docs if name.startswith("book/"))
    texts = {path: path.read_text(encoding="utf-8") for path in pages if path.suffix == ".md"}
    made = [f"book/{path.stem}" for path, text in texts.items() if MARKER.search(text)]
    return [*made, *([app.config.root_doc] if Path(app.outdir, PDF).exists() else [])]


def finish_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Definitions over links to the glossary, ids for figures."""
    body = context.get("body")
    if not body or not pagename.startswith("book/"):
        return
    body = number_figures(body)
    if pagename == app.config.root_doc and Path(app.outdir, PDF).exists():
        address = context["pathto"](PDF, 1)
        body += f'<p class="sami-pdf"><a href="{address}">The whole book as one PDF</a></p>'
    if pagename != GLOSSARY:
        text = Path(app.env.doc2path(GLOSSARY)).read_text(encoding="utf-8")
        body = with_definitions(body, read_glossary(text))
        if "sami-term" in body:
            app.add_js_file("terms.js")
    context["body"] = body


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", fill_page)
    app.connect("env-get-outdated", made_pages)
    app.connect("html-page-context", finish_page)
    return {"version": "1", "parallel_read_safe": True}
