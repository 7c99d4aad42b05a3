"""A manifest names every file, and every change is seen."""

import hashlib
import json

import pytest

from g2lstm.manifest import differences, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/b.csv").write_bytes(b"1,2\n")
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / ".DS_Store").write_bytes(b"left by a tool")
    assert write_manifest(tmp_path) == 2
    return tmp_path


def test_it_lists_every_file_with_its_checksum(folder):
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert list(files) == ["a.txt", "deep/er/b.csv"]
    assert files["a.txt"] == {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    assert differences(folder) == []


def test_the_same_files_give_the_same_manifest(folder):
    before = (folder / "manifest.json").read_bytes()
    write_manifest(folder)
    assert (folder / "manifest.json").read_bytes() == before


def test_the_report_of_the_workflow_is_no_part_of_the_results(folder):
    before = (folder / "manifest.json").read_bytes()
    (folder / "report.html").write_text("<html>")
    assert differences(folder) == []
    write_manifest(folder)
    assert (folder / "manifest.json").read_bytes() == before
    (folder / "deep/report.html").touch()
    assert differences(folder) == [("deep/report.html", "is not listed in the manifest")]


def test_a_changed_byte_a_missing_and_an_extra_file_are_seen(folder):
    (folder / "a.txt").write_bytes(b"abd")
    (folder / "deep/er/b.csv").unlink()
    (folder / "deep/c").touch()
    assert [(name, what.split(":")[0]) for name, what in differences(folder)] == [
        ("a.txt", "was changed"),
        ("deep/c", "is not listed in the manifest"),
        ("deep/er/b.csv", "is missing"),
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"format": "other", "files": {}}', "null"]
)
def test_a_damaged_manifest_is_named(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is no manifest"):
        differences(folder)


def test_no_manifest_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no files"):
        write_manifest(tmp_path)
    with pytest.raises(FileNotFoundError):
        differences(tmp_path)
