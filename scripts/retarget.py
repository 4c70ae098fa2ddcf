"""Point every link, badge and install cell of the book at a fork.

    python scripts/retarget.py owner/name [branch]    (`make retarget REPO=owner/name BRANCH=main`)

`_config.yml` says where the book lives now. What repeats it is rewritten: addresses on GitHub and
its pages, Colab and Binder, the install cells, and the branch that continuous integration
publishes. Running it back restores every file, byte for byte: nothing is written unless that is so.
Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

FILES = ("*.md", "*.cff", "*.toml", "*.yml", ".github/workflows/*.yml", "book/**/*.md",
         "book/**/*.ipynb", "book/**/*.py")  # fmt: skip

FORMS = (
    "github.com/{owner}/{name}/blob/{branch}/",
    "github.com/{owner}/{name}/edit/{branch}/",
    "github.com/{owner}/{name}/raw/{branch}/",
    "github.com/{owner}/{name}/tree/{branch}",
    "github.com/{owner}/{name}@{branch}",
    "github.com/{owner}/{name}",
    "colab.research.google.com/github/{owner}/{name}/blob/{branch}/",
    "mybinder.org/v2/gh/{owner}/{name}/{branch}",
    "raw.githubusercontent.com/{owner}/{name}/{branch}/",
    "{owner}.github.io/{name}",
    "badge.svg?branch={branch}",
    "&& cd {name}",
    "\n  branch: {branch}",
    "branches: [{branch}]",
    "refs/heads/{branch}",
)
"""Everything that names the place; the first form that fits counts, so longer ones come first."""


class Place(NamedTuple):
    """A repository on GitHub, and a branch of it."""

    owner: str
    name: str
    branch: str


def current(root: Path) -> Place:
    """Where the book in ``root`` lives.

    Raises:
        ValueError: if its _config.yml does not say so.
    """
    text = (root / "_config.yml").read_text(encoding="utf-8")
    found = re.search(
        r"^repository:\n  url: https://github\.com/([\w-]+)/([\w.-]+)\n  branch: (\S+)$",
        text,
        re.MULTILINE,
    )
    if not found:
        raise ValueError("_config.yml has no `repository:` with `url:` and `branch:` below it")
    return Place(*found.groups())


def place(repository: str, branch: str) -> Place:
    """The place that the command line names.

    Raises:
        ValueError: if that is no name GitHub allows.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+/[\w.-]+", repository):
        raise ValueError(f"REPO is {repository!r}; give owner/name")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", branch):
        raise ValueError(f"BRANCH is {branch!r}; give the name of a branch")
    return Place(*repository.split("/"), branch)


def moved(text: str, old: Place, new: Place) -> str:
    """A text with every mention of one place replaced by another."""
    forms = [re.escape(form.format(**old._asdict())) for form in FORMS]
    # A longer name that starts alike, or a longer branch, is another place.
    pattern = "|".join(f"(?P<f{i}>{form}(?![\\w-]))" if form[-1] not in "/]" else
                       f"(?P<f{i}>{form})" for i, form in enumerate(forms))  # fmt: skip

    def replace(match: re.Match[str]) -> str:
        assert match.lastgroup is not None
        return FORMS[int(match.lastgroup[1:])].format(**new._asdict())

    return re.sub(pattern, replace, text)


def retarget(root: Path, new: Place) -> list[Path]:
    """Rewrites the files below ``root``; returns those that changed.

    Raises:
        ValueError: if the way back would not restore a file; then nothing has been written.
    """
    old = current(root)
    changes = {}
    for path in sorted({path for pattern in FILES for path in root.glob(pattern)}):
        text = path.read_bytes().decode("utf-8")
        after = moved(text, old, new)
        if moved(after, new, old) != text:
            raise ValueError(
                f"{path.relative_to(root)} names {new.owner}/{new.name} or {new.branch} already, "
                "so the way back would not restore it; nothing was changed"
            )
        if after != text:
            changes[path] = after
    for path, text in changes.items():
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(text.encode("utf-8"))
        os.replace(partial, path)
    return list(changes)


def main() -> None:
    """Retargets the book that holds this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", help="owner/name")
    parser.add_argument("branch", nargs="?", default="main")
    parser.add_argument("--root", type=Path, default=ROOT, help="the book's folder")
    options = parser.parse_args()
    try:
        old, new = current(options.root), place(options.repository, options.branch)
        changed = retarget(options.root, new)
    except ValueError as error:
        sys.exit(str(error))
    print(f"{len(changed)} files: {old.owner}/{old.name} {old.branch} -> "
          f"{new.owner}/{new.name} {new.branch}")  # fmt: skip


if __name__ == "__main__":
    main()
