"""A fork: every link leads to it, and the way back restores the files bit for bit."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from clone import tracked_files
from retarget import Place, current, moved, place, retarget

ROOT = Path(__file__).resolve().parent.parent
HOME = current(ROOT)
FORK = Place("a-teacher", "sami-course.2027", "autumn/main-1")
TEXT = {".cff", ".ipynb", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yml", ""}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of every text file under version control, but for data and results."""
    copy = tmp_path_factory.mktemp("copy")
    for name in tracked_files():
        source, target = ROOT / name, copy / name
        if source.is_file() and source.suffix in TEXT and not name.startswith("data/"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return copy


def digests(folder: Path) -> dict[Path, str]:
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_fork_and_back(book: Path) -> None:
    before = digests(book)
    changed = {path.relative_to(book) for path in retarget(book, FORK)}
    assert Path("_config.yml") in changed and Path("README.md") in changed
    assert {Path(f"book/assignments/{n}.ipynb") for n in ("1_sac", "4_sance")} <= changed

    # No link is left behind: not to the old repository, nor to the old branch of the new one.
    for path in before:
        text = (book / path).read_text(encoding="utf-8")
        if path.parts[0] not in ("tests", "src"):
            assert f"{HOME.owner}/{HOME.name}" not in text, path
            assert f"{HOME.owner}.github.io" not in text, path
            assert f"/blob/{HOME.branch}/" not in text, path

    repository = yaml.safe_load((book / "_config.yml").read_text())["repository"]
    assert repository["url"] == f"https://github.com/{FORK.owner}/{FORK.name}"
    assert repository["branch"] == FORK.branch
    for path in book.rglob("book/**/*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        install = next(cell.source for cell in cells if cell.cell_type == "code")
        assert f'"git+https://github.com/{FORK.owner}/{FORK.name}@{FORK.branch}"]' in install
    for workflow in (book / ".github/workflows").glob("*.yml"):
        assert not re.search(r"branches: \[main\]|refs/heads/main", workflow.read_text())

    assert current(book) == FORK
    assert {path.relative_to(book) for path in retarget(book, HOME)} == changed
    assert digests(book) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("https://github.com/o/n/blob/main/x.md", "https://github.com/p/q/blob/dev/x.md"),
        (
            "https://colab.research.google.com/github/o/n/blob/main/a.ipynb",
            "https://colab.research.google.com/github/p/q/blob/dev/a.ipynb",
        ),
        ("[![ci](https://github.com/o/n/w/badge.svg?branch=main)]", None),
        ("https://o.github.io/n/page.html", "https://p.github.io/q/page.html"),
        ("https://mybinder.org/v2/gh/o/n/main?x", "https://mybinder.org/v2/gh/p/q/dev?x"),
        ("x @ git+https://github.com/o/n@main\n", "x @ git+https://github.com/p/q@dev\n"),
        # Other places stay what they are.
        ("https://github.com/o/n-more and https://github.com/o2/n", "same"),
        ("the main idea; cd n; o/n", "same"),
    ],
)
def test_forms(old: str, new: str | None) -> None:
    found = moved(old, Place("o", "n", "main"), Place("p", "q", "dev"))
    if new is None:
        new = "[![ci](https://github.com/p/q/w/badge.svg?branch=dev)]"
    assert found == (old if new == "same" else new)


def test_what_could_not_be_undone_is_refused(tmp_path: Path) -> None:
    config = "repository:\n  url: https://github.com/o/n\n  branch: main\n"
    (tmp_path / "_config.yml").write_text(config)
    (tmp_path / "README.md").write_text("https://github.com/o/n and https://github.com/p/q\n")
    with pytest.raises(ValueError, match=r"README\.md names p/q"):
        retarget(tmp_path, Place("p", "q", "main"))
    assert (tmp_path / "_config.yml").read_text() == config
    for repository, branch in (("p", "main"), ("p/q/r", "main"), ("p/q", "a b"), ("p/q", "")):
        with pytest.raises(ValueError, match=r"REPO|BRANCH"):
            place(repository, branch)
