"""What is read from a file of JSON, or why not; writing is tried in `test_faults`."""

import pytest

from g2lstm.files import read_json, write_json


def test_what_was_written_is_read(tmp_path):
    value = {"a": [1, 2.5, None, "ä"], "b": {}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.json is no JSON \("),
        (b"\xff", r"a\.json is no JSON \("),
        (b"[" * 100_000, r"a\.json is no JSON \("),
        (b"[1]", r"a\.json is no JSON object, but of type list"),
        (b"null", r"a\.json is no JSON object, but of type NoneType"),
    ],
)
def test_anything_else_is_an_error_that_names_the_file(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "a.json")
