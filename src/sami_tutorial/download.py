"""Fetches stored files of the book where only the library was installed, as on Colab.

``pip install`` brings the code, not ``data/`` nor the films. It notes, though, from which commit of
which repository the code came (``direct_url.json``, PEP 610). A file that is missing is fetched
from that very commit, so code and results always belong together, a fork's to the fork's. Files
come one by one, when they are asked for; each is checked against the hash in the ``manifest.json``
of its folder, and kept in the user's cache folder. Used by :mod:`sami_tutorial.results` and for the
films of chapter 1, *Tasks and skills*.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pooch
from tqdm import tqdm

MANIFEST = "manifest.json"
_TIMEOUT = 60  # seconds without a byte
_ATTEMPTS = 3
_QUIET = 0.5  # seconds: what comes sooner shows no progress bar
_CHUNK = 2**16  # bytes


class _Bar(tqdm):
    """A bar that Pooch does not draw where the file was there before there was a bar."""

    def reset(self, total: float | None = None) -> None:
        self.n = 0


class DownloadError(OSError):
    """A file that could not be fetched, or came damaged."""


def origin() -> tuple[str, str] | None:
    """The repository and the commit that the library was installed from, or None.

    It is None in a clone, and where the library came as a package without a repository.
    """
    try:
        noted = metadata.distribution("sami-tutorial").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    about = json.loads(noted or "{}")
    if "vcs_info" not in about or not about["url"].startswith(("http://", "https://")):
        return None
    return about["url"].rstrip("/").removesuffix(".git"), about["vcs_info"]["commit_id"]


def cache(folder: str) -> Path | None:
    """The local copy of a folder of the repository, e.g. "data"; its manifest is there.

    Returns:
        None where there is nowhere to fetch it from; see :func:`origin`.

    Raises:
        DownloadError: if the manifest cannot be fetched.
    """
    source = origin()
    if source is None:
        return None
    directory = _root(source[1]) / folder
    if not (directory / MANIFEST).is_file():
        fetch(directory / MANIFEST, sha256=None)
    return directory


def holds(path: Path) -> bool:
    """Whether a path lies in the cache, so that :func:`fetch` can bring it."""
    source = origin()
    return source is not None and path.is_relative_to(_root(source[1]))


def fetch(path: Path, *, sha256: str | None) -> None:
    """Brings a file of the cache, whole or not at all, with a progress bar if that takes long.

    Args:
        path: where it goes; see :func:`cache`.
        sha256: the hash that it must have; None for a manifest, which nothing vouches for but the
            commit in its address.

    Raises:
        DownloadError: if it cannot be fetched, stored, or is not what it should be.
    """
    source = origin()
    if source is None or not holds(path):
        raise DownloadError(f"{path} is not in the cache of an installed library; nothing fetched")
    repository, commit = source
    name = path.relative_to(_root(commit)).as_posix()
    store = pooch.create(
        path=_root(commit),
        base_url=f"{repository}/raw/{commit}/",
        registry={name: f"sha256:{sha256}" if sha256 else None},
        retry_if_failed=_ATTEMPTS - 1,
    )
    # A notebook shows standard error as if something had gone wrong, and the log of many files is
    # long: one bar on standard output, which goes when the file is there.
    pooch.get_logger().setLevel("ERROR")
    look = {"unit": "B", "unit_scale": True, "leave": False, "delay": _QUIET, "file": sys.stdout}
    try:
        # Pooch takes a bar of no length for none at all, and sets the length later.
        with _Bar(desc=f"fetching {name}", total=1, **look) as bar:
            download = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, timeout=_TIMEOUT)
            store.fetch(name, downloader=download)
    except OSError as error:
        raise DownloadError(
            f"{name} could not be fetched from {repository} ({error}); see that you are online and "
            f"that {path.parent} has space, then run this again. Or work in a clone of the "
            "repository: it holds every file"
        ) from error
    except ValueError as error:
        raise DownloadError(
            f"{name} came damaged from {repository}: its hash is not the manifest's. Run this "
            "again; if that does not help, work in a clone of the repository"
        ) from error


def _root(commit: str) -> Path:
    return Path(pooch.os_cache("sami-tutorial")) / commit
