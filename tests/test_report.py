"""The report: what it says is what was measured."""

import json
from dataclasses import asdict, replace

import pytest

from g2lstm.case_study import ALIGNMENT
from g2lstm.experiments import configure
from g2lstm.gate_profile import GATE_PROFILE
from g2lstm.gates import GATES
from g2lstm.paper import CLAIMS, TABLES
from g2lstm.presets import PRESETS
from g2lstm.provenance import code_checksum
from g2lstm.report import gather_evidence, judge_all, open_studies, save_forest, write_report
from g2lstm.robustness import COMPRESSION
from g2lstm.trials import EXPLORATION, TUNING, copy_trial
from g2lstm.verdict_rule import NOT_MEASURED, OPEN, WEAKER
from g2lstm.verdict_tables import (
    corpus_sentence,
    primary,
    statistics_table,
    verdict_table,
    verdict_words,
)
from made_up_runs import SATURATION, alignment, compression, made_up_run, profile, write_run


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
                (GATE_PROFILE, profile(SATURATION[gate] + 0.001 * seed)),
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
    rows = judge_all(evidence)
    assert {row["claim"] for row in rows} == set(CLAIMS)
    write_report("quick", studies, evidence)
    results = folder / "results/quick"
    claims = json.loads((results / "claims.json").read_text())
    assert claims["statistics"] == json.loads(json.dumps(rows))
    assert claims["collapsed"] == []
    assert claims["tuning_seeds"] == {"grammar": []}
    assert len(claims["provenance"]["runs"]) == 6
    text = (results / "report.md").read_text()
    for row in primary(rows):
        cells = [row["name"], f"{row['noise']:g}"]
        (line,) = (line for line in text.splitlines() if cells == columns(line)[:2])
        assert (row["verdict"] if row["noise"] == 1 else verdict_words(row)) in columns(line)[2]
    assert "G2-LSTM, paper (Penn Treebank)" in text
    assert "53.60 ± 0.01" not in text
    assert "52.81 ± 0.01" in text, "mean of the LSTM's two seeds"
    assert claims["rule"].strip() in text
    assert corpus_sentence(evidence[0], rows) in text
    save_forest(rows, "quick", studies)
    for suffix in ("png", "svg", "provenance.json"):
        assert (results / f"figures/forest.{suffix}").stat().st_size


def columns(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_seeds_that_chose_the_settings_are_said_beside_the_verdicts(folder, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(folder / "trials"))
    candidates = ({"learning_rate": 0.25},)
    quick = replace(PRESETS["language-model"]["quick"], candidates=candidates)
    monkeypatch.setitem(PRESETS["language-model"], "quick", quick)
    directory = write_run(made_up_run("sigmoid", 2, overrides=candidates[0]))
    config = asdict(configure(gate="sigmoid", seed=2, overrides=candidates[0]))
    (directory / "config.json").write_text(json.dumps(config | {"fingerprint": "made up"}))
    copy_trial(directory, folder / "results/quick", TUNING)
    monkeypatch.setenv("G2LSTM_RUNS", str(folder / "runs"))
    evidence = gather_evidence(open_studies("quick", [{"task": "language-model"}]))
    rows = judge_all(evidence)
    assert rows[0]["without_tuning_seeds"]["seeds"] == [[1], [1]]
    assert "chosen on seed 2" in corpus_sentence(evidence[0], rows)


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
    rows = primary(judge_all(gather_evidence(studies)))
    assert {row["verdict"] for row in rows if row["noise"] == 0.2} == {OPEN}
    assert {row["verdict"] for row in rows if row["noise"] == 1} == {NOT_MEASURED}
    assert verdict_words(rows[0]) == f"{OPEN} (one run has no spread)"


def row(**changes):
    return {
        "number": 1, "claim": 1, "task": "translation", "corpus": "grammar-de-en",
        "name": "accuracy", "unit": "BLEU", "noise": 0.2, "paper": 1.0, "seeds": [[1, 2], [1]],
        "mean": 0.25, "interval": [0.1, 0.4], "interval_90": [0.15, 0.35], "paired": None,
        "without_tuning_seeds": None, "share": 0.25, "verdict": WEAKER, "seeds_needed": None,
        "side": "the paper's",
    } | changes  # fmt: skip


def test_tables_of_statistics_and_verdicts():
    other = {"corpus": "grammar", "unit": "share of gates", "mean": -0.1234}
    rows = [
        row(),
        row(number=None, name="gap", mean=1.0, paper=None),
        row(**other, number=2, name="gates", verdict=OPEN, side=None, seeds_needed=7),
        row(verdict=NOT_MEASURED, number=3, name="missing"),
    ]
    table = verdict_table(rows)
    assert table["statistic"].tolist() == ["accuracy", "gates", "missing"]
    assert table["grammar-de-en"].tolist() == [
        "**weaker (25%)**: +0.25 [+0.10, +0.40], paper +1.00, n = 2 and 1",
        NOT_MEASURED, NOT_MEASURED,
    ]  # fmt: skip
    assert table["grammar"][1].startswith("**open (about 7 seeds)**: -0.123 [")
    details = statistics_table(rows)
    assert details["verdict"].tolist() == ["weaker (25%)", "", "open (about 7 seeds)"]
    assert details["paper"].tolist() == ["+1.00", "", "+1.000"]
    assert verdict_words(row(verdict=OPEN)) == "open (on the paper's side of 0, over 1000 seeds)"
