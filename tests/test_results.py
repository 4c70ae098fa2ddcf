"""Stored results are traceable and cannot change unnoticed."""

import subprocess

import pandas as pd
import pytest

from sami_tutorial import results
from sami_tutorial.files import write_whole
from sami_tutorial.lock import locked
from sami_tutorial.results import (
    ResultsError,
    current_origin,
    data_dir,
    load_bytes,
    load_table,
    provenance,
    read_manifest,
    store_table,
)

TABLE = pd.DataFrame({"seed": [0, 1], "episode_return": [1.5, 2.5]})


def store(directory, origin=None):
    return store_table(
        "curves/x.parquet",
        TABLE,
        command="make x",
        config={"seeds": [0, 1]},
        wall_seconds=2.0,
        origin=origin,
        directory=directory,
    )


def test_round_trip_with_provenance(tmp_path):
    path = store(tmp_path)
    assert load_table("curves/x.parquet", tmp_path).equals(TABLE)
    entry = provenance("curves/x.parquet", tmp_path)
    assert entry["command"] == "make x" and entry["config"] == {"seeds": [0, 1]}
    assert entry["bytes"] == path.stat().st_size
    assert {"commit", "hardware", "wall_seconds", "created"} <= set(entry)
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_origin_is_that_of_the_runs(tmp_path):
    store(tmp_path)
    now = current_origin()
    assert provenance("curves/x.parquet", tmp_path).items() >= now.items()
    then = {"commit": "a1b2c3", "hardware": "an older machine"}
    store(tmp_path, then)
    assert provenance("curves/x.parquet", tmp_path).items() >= then.items()


def test_no_entry_made_meanwhile_is_lost(tmp_path, monkeypatch):
    """From reading the manifest to writing it no other process can; one that must wait, waits."""
    monkeypatch.setattr(results, "PATIENCE", 0.0)
    seen = []

    def alone(name, function):
        def checked(*arguments):
            with pytest.raises(TimeoutError), locked(tmp_path / results.LOCK, 0.0):
                pass
            seen.append(name)
            return function(*arguments)

        monkeypatch.setattr(results, name, checked)

    alone("read_manifest", read_manifest)
    alone("write_whole", write_whole)
    store(tmp_path)
    assert seen == ["write_whole", "read_manifest", "write_whole"]
    before = read_manifest(tmp_path)
    with (
        locked(tmp_path / results.LOCK, 0.0),
        pytest.raises(TimeoutError, match=r"another process holds .* wait for it"),
    ):
        store(tmp_path, {"commit": "a1b2c3", "hardware": "an older machine"})
    assert read_manifest(tmp_path) == before


def test_the_commit_is_unknown_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert current_origin()["commit"] == "unknown"


def test_the_commit_of_a_repository_around_an_installed_library_is_not_its_own(
    tmp_path, monkeypatch
):
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), (*who, "commit", "-q", "--allow-empty", "-m", "foreign")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    installed = tmp_path / ".venv/lib/site-packages/sami_tutorial/results.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(results, "__file__", str(installed))
    assert current_origin()["commit"] == "unknown"


def test_a_changed_missing_or_unknown_file_is_refused(tmp_path):
    path = store(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(ResultsError, match="differs from its hash"):
        load_bytes("curves/x.parquet", tmp_path)
    path.unlink()
    with pytest.raises(ResultsError, match="make x"):
        load_bytes("curves/x.parquet", tmp_path)
    with pytest.raises(ResultsError, match=r"not in manifest.*1 files; did you mean 'curves/x"):
        load_bytes("curves/y.parquet", tmp_path)
    with pytest.raises(ResultsError, match=r"not in manifest.*no name in it is alike"):
        provenance("zzz", tmp_path)


def test_every_file_of_the_book_matches_its_hash():
    directory = data_dir()
    files = read_manifest(directory)["files"]
    for name in files:
        load_bytes(name, directory)
    stored = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
    assert stored - {"manifest.json", "lock"} == set(files)


def test_data_folder_can_be_named_or_is_missed_by_name(tmp_path, monkeypatch):
    store(tmp_path)
    monkeypatch.setenv("SAMI_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.setenv("SAMI_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ResultsError, match=r"SAMI_DATA is '.*nowhere', where there is no"):
        data_dir()
