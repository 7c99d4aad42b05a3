"""What a test needs is missing: a skip, but a failure where nothing may be skipped."""

import pytest

import needs


def test_what_is_missing_skips_or_fails_and_says_what_to_do(monkeypatch):
    monkeypatch.delenv("G2LSTM_TEST_EVERYTHING", raising=False)
    with pytest.raises(pytest.skip.Exception, match="a thing is missing: get one"):
        needs.missing("a thing", "get one")
    monkeypatch.setenv("G2LSTM_TEST_EVERYTHING", "1")
    with pytest.raises(pytest.fail.Exception, match="a thing is missing: get one"):
        needs.missing("a thing", "get one")


def test_slurm_is_missing_where_sinfo_is(monkeypatch):
    monkeypatch.setenv("G2LSTM_TEST_EVERYTHING", "1")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match=r"\.ci/slurm start"):
        needs.slurm()
