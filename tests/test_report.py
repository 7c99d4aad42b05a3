"""The report: what it says is what was measured."""

import json
import re
from dataclasses import asdict, replace

import pytest

from g2lstm.case_study import ALIGNMENT
from g2lstm.experiments import configure
from g2lstm.gates import GATES
from g2lstm.paper import CLAIMS, TABLES
from g2lstm.presets import PRESETS
from g2lstm.provenance import code_checksum
from g2lstm.report import (
    gather_evidence,
    judge_all,
    open_studies,
    statistics_table,
    verdict_table,
    write_report,
)
from g2lstm.robustness import COMPRESSION
from g2lstm.trials import EXPLORATION, TUNING, copy_trial
from g2lstm.verdicts import HOLDS, OPEN, Statistic
from made_up_runs import alignment, compression, made_up_run, write_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Published records of three gates and two seeds, measured as in the paper's table."""
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("G2LSTM_RESULTS", str(tmp_path / "results"))
    for gate in GATES:
        for seed in (1, 2):
            run = write_run(made_up_run(gate, seed))
            table = {k: v + 0.01 * seed for k, v in TABLES["Penn Treebank"][gate].items()}
            for measurement, result in (
                (COMPRESSION, compression(table)),
                (ALIGNMENT, alignment(-1.0 - 0.01 * seed, content_input=0.9)),
            ):
                record = {
                    "settings": {},
                    "fingerprint": "made up",
                    "code": code_checksum(measurement.modules),
                    "result": result,
                }
                path = run / "measurements" / f"{measurement.name}.json"
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps(record))
    return tmp_path


def test_the_report_holds_the_verdicts_and_the_paper(folder):
    studies = open_studies("quick", [{"task": "language-model"}], save=True)
    evidence = gather_evidence(studies)
    statistics = judge_all(evidence)
    assert [s.claim for s in statistics] == sorted(s.claim for s in statistics)
    assert {s.claim for s in statistics} == set(CLAIMS)
    write_report("quick", studies, evidence)
    results = folder / "results/quick"
    claims = json.loads((results / "claims.json").read_text())
    assert [row["verdict"] for row in claims["statistics"]] == [s.verdict for s in statistics]
    assert len(claims["provenance"]["runs"]) == 6
    text = (results / "report.md").read_text()
    for row in claims["verdicts"]:
        cell = re.escape(row["text"]) + r" +\| " + re.escape(row["verdict"])
        cell += rf" \({row['holding']} of {row['statistics']} parts hold\)"
        assert re.search(cell, text), row
    assert "G2-LSTM, paper (Penn Treebank)" in text
    assert "53.60 ± 0.01" not in text
    assert "52.81 ± 0.01" in text, "mean of the LSTM's two seeds"
    assert claims["rule"].strip() in text
    words = text[text.index("## In plain words") : text.index("## Results")]
    assert "the LSTM's test perplexity is 52.81 ± 0.01, G2-LSTM's 1.3% lower" in words


def test_the_report_shows_how_the_settings_were_chosen(folder, monkeypatch):
    studies = open_studies("quick", [{"task": "language-model"}], save=True)
    evidence = gather_evidence(studies)
    write_report("quick", studies, evidence)
    report = folder / "results/quick/report.md"
    assert "validation text alone" not in report.read_text()
    monkeypatch.setenv("G2LSTM_RUNS", str(folder / "trials"))
    candidates = tuple({"learning_rate": rate} for rate in (0.25, 0.125))
    quick = replace(PRESETS["language-model"]["quick"], candidates=candidates)
    monkeypatch.setitem(PRESETS["language-model"], "quick", quick)
    for kind, gate, settings in (
        (TUNING, "sigmoid", {"learning_rate": 0.25}),
        (TUNING, "gumbel", {"learning_rate": 0.125}),
        (EXPLORATION, "gumbel", {"clip": 0.75}),
    ):
        directory = write_run(made_up_run(gate, 1, overrides=settings))
        config = asdict(configure(gate=gate, overrides=settings)) | {"fingerprint": "made up"}
        (directory / "config.json").write_text(json.dumps(config))
        if kind == EXPLORATION:
            write_validation_compression(directory)
        copy_trial(directory, folder / "results/quick", kind)
    write_report("quick", studies, evidence)
    text = " ".join(report.read_text().split())
    chosen = text.index("`g2lstm tune --task language-model --preset quick --corpus grammar`")
    explored = text.index("Other settings")
    assert "| LSTM | 0.25 | 1 | 200.00 | 150.00 | 2 | yes |" in text[chosen:explored]
    assert "| G2-LSTM | 0.125 | 1 | 200.00 | 150.00 | 2 | yes |" in text[chosen:explored]
    assert "| G2-LSTM (clip=0.75) | 1 | | 200.00 | 150.00 | 2 | +5.1% |" in text[explored:]
    assert "`g2lstm train --untested" in text[explored:]
    assert "--set clip=0.75" in text[explored:]


def write_validation_compression(directory):
    """Of a run without weights: the paper's four compressions, which cost 0.05 nats in the mean."""
    losses = {"none": 4.0, "step": 4.0, "clip": 4.0, "rank": 4.05, "rank+": 4.15}
    settings = {
        "steps": [0.2], "clips": [0.4], "rank_shares": [128 / 1150, 64 / 1150],
        "limit": 20_000, "sentences": 200,
    }  # fmt: skip
    record = {
        "settings": settings,
        "fingerprint": "made up",
        "code": code_checksum(("robustness",)),
        "result": [{"kind": kind, "setting": 0, "loss": loss} for kind, loss in losses.items()],
    }
    path = directory / "measurements/compression_on_validation.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record))


def test_one_seed_settles_nothing(folder):
    studies = open_studies("quick", [{"task": "language-model"}], seeds=[1])
    statistics = judge_all(gather_evidence(studies))
    assert statistics
    assert {s.verdict for s in statistics} == {OPEN}


def test_tables_of_statistics_and_verdicts():
    part = Statistic(
        3, "language-model", "grammar", "share", "share", "above", 0.5, (0.7, 0.71), (1, 2), 0.6
    )
    other = Statistic(
        1, "translation", "grammar-de-en", "worse", "BLEU", "below", 0.5, (0.1,), (1,)
    )
    row = statistics_table([part, other]).iloc[0]
    assert row["verdict"] == HOLDS
    assert row["the claim says"] == "above 0.5"
    assert row["paper"] == "0.600"
    assert row["95 % interval"] == "[0.641, 0.769]"
    table = verdict_table([part, other])
    assert table["claim"].tolist() == [f"{n}. {CLAIMS[n]}" for n in (1, 3)]
    assert table["grammar"].tolist() == ["not measured", f"{HOLDS} (1 of 1 parts hold)"]
    assert table["grammar-de-en"].tolist() == [f"{OPEN} (0 of 1 parts hold)", "not measured"]
