"""Where only the library is installed, files come from its commit: checked, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pandas as pd
import pooch
import pytest
from PIL import Image

from sami_tutorial import download, figures
from sami_tutorial.download import DownloadError, cache, fetch, holds, origin
from sami_tutorial.results import ResultsError, data_dir, load_bytes, load_table, store_table

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TABLE = pd.DataFrame({"seed": [0, 1], "success": [0.25, 0.75]})
FILM = "hop.webp"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; may break off in the middle of a file."""

    breaks = 0  # so many answers from now on stop after half of the file

    def log_message(self, *arguments: object) -> None:
        """Nothing: a test's output is its own."""

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        if Handler.breaks and not self.path.endswith("manifest.json"):
            Handler.breaks -= 1
            content = content[: len(content) // 2]
        outputfile.write(content)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository on a server of this computer, its library "installed", far from any clone.

    Yields:
        the folder that holds the repository's files.
    """
    home = tmp_path / "served" / "owner" / "name"
    files = home / "raw" / COMMIT
    store = {"command": "make it", "config": {}, "wall_seconds": 1.0}
    store_table("curves/x.parquet", TABLE, directory=files / "data", **store)
    films = files / "book" / "_static" / "videos"
    entries = {}
    for name in (FILM, "hop-poster.webp"):
        films.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 18)).save(films / name)
        entries[name] = {"sha256": sha256((films / name).read_bytes()).hexdigest()}
    (films / "manifest.json").write_text(json.dumps({"files": entries}))

    monkeypatch.setattr(Handler, "breaks", 0)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "served"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/owner/name"
    monkeypatch.setattr(download, "origin", lambda: (address, COMMIT))
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two attempts
    monkeypatch.delenv("SAMI_DATA", raising=False)
    # Neither the working folder nor the library's lies in the clone.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr("sami_tutorial.results.__file__", str(tmp_path / "site" / "results.py"))
    yield files
    server.shutdown()
    server.server_close()


def test_a_table_is_fetched_once_and_checked(repository: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(download, "_QUIET", 600.0)  # on a busy computer, half a second is nothing
    directory = data_dir()
    assert holds(directory / "curves/x.parquet")
    assert not (directory / "curves").exists()  # files come when they are asked for
    assert load_table("curves/x.parquet").equals(TABLE)
    (repository / "data/curves/x.parquet").unlink()
    assert load_table("curves/x.parquet").equals(TABLE)
    captured = capsys.readouterr()
    assert captured.out.strip() == captured.err == ""  # no bar and no log for what is quick


def test_what_takes_time_has_a_bar_that_goes_away(repository: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(download, "_QUIET", 0.0)
    data_dir()
    captured = capsys.readouterr()
    assert "fetching data/manifest.json" in captured.out and captured.err == ""
    assert captured.out.endswith("\r") and captured.out.split("\r")[-2].strip() == ""


def test_a_download_that_breaks_off_is_tried_again(repository: Path) -> None:
    data_dir()
    Handler.breaks = 2
    assert load_table("curves/x.parquet").equals(TABLE)


def test_what_is_never_whole_is_not_kept(repository: Path) -> None:
    directory = data_dir()
    Handler.breaks = 9
    with pytest.raises(DownloadError, match=r"could not be fetched.*online.*run this again"):
        load_bytes("curves/x.parquet")
    assert [path.name for path in directory.rglob("*") if path.is_file()] == ["manifest.json"]


def test_another_file_of_that_name_is_refused(repository: Path) -> None:
    directory = data_dir()
    path = repository / "data/curves/x.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(DownloadError, match=r"came damaged.*Run this again"):
        load_bytes("curves/x.parquet")
    assert not (directory / "curves/x.parquet").exists()


def test_offline(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "origin", lambda: ("http://127.0.0.1:9/owner/name", COMMIT))
    with pytest.raises(DownloadError, match=r"manifest\.json could not be fetched.*see that you"):
        data_dir()


def test_a_full_disk(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = data_dir()

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pooch.core.shutil.move", full)
    with pytest.raises(DownloadError, match=r"No space left on device.*has space"):
        load_bytes("curves/x.parquet")
    assert not (directory / "curves/x.parquet").exists()


def test_films_are_fetched_and_travel_in_the_output(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    figures.show_video(f"_static/videos/{FILM}", alt="A hop.", caption="Hopper")
    page = shown[0]["text/html"]
    assert page.count('="data:image/webp;base64,') == 2 and "_static" not in page
    with pytest.raises(ResultsError, match="not in manifest"):
        figures.show_video("_static/videos/other.webp", alt="A hop.", caption="Hopper")


def test_nothing_is_fetched_into_other_folders(repository: Path, tmp_path: Path) -> None:
    assert not holds(tmp_path / "x")
    with pytest.raises(DownloadError, match="not in the cache"):
        fetch(tmp_path / "x", sha256=None)


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        (
            {"url": "https://github.com/o/n.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            ("https://github.com/o/n", COMMIT),
        ),
        ({"url": "file:///clone", "dir_info": {"editable": True}}, None),
        ({"url": "file:///clone", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}, None),
        (None, None),
    ],
    ids=["repository", "editable", "local", "package"],
)
def test_origin(monkeypatch: pytest.MonkeyPatch, noted, expected) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return noted and json.dumps(noted)

    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert origin() == expected


def test_no_installed_library_no_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert origin() is None
    assert cache("data") is None
