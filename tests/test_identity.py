"""A file of another run, or one that was changed, is found by whoever reads it."""

import json
import math
import shutil
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g2lstm import identity, runs
from g2lstm.checkpoint import CheckpointError, load_checkpoint, read_progress, save_checkpoint
from g2lstm.command_line import main
from g2lstm.files import remove
from g2lstm.identity import read_record, read_rows, run_of, write_record
from g2lstm.listing import list_runs
from g2lstm.manifest import write_manifest
from g2lstm.measurements import Measurement, load_trained
from g2lstm.record_checks import measurement_problems
from g2lstm.records import (
    RECORDS,
    TRANSLATION_RECORDS,
    RunError,
    check_place,
    copy_records,
    find_runs,
    read_bleu_statistics,
    read_run,
    read_translations,
)
from g2lstm.release import release
from g2lstm.runs import prepare, train_or_load
from g2lstm.saved_models import ModelError, open_model, save_compressed
from g2lstm.subwords import Subwords
from g2lstm.training import load_best
from g2lstm.verification import verify
from tiny_runs import finished, tiny, without_headers

pytestmark = pytest.mark.usefixtures("corpora")

WEIGHTS, CHECKPOINT, MEASURED = (
    "model.safetensors", "state/checkpoint.safetensors", "measurements/sum.json",
)  # fmt: skip
ERRORS = (RunError, CheckpointError, ModelError, ValueError)
MEASUREMENT = Measurement("sum", lambda trained: {"sum": 1.5}, ("files",))


@pytest.fixture(scope="module")
def originals(corpora):
    """Task -> directories of the runs with seed 1 and 2, both measured."""
    found = {}
    for task in ("language-model", "translation"):
        both = [finished(task, gate="sigmoid", seed=seed) for seed in (1, 2)]
        for run in both:
            MEASUREMENT.of(run)
        found[task] = [run.directory for run in both]
    return found


@pytest.fixture
def copies(originals, tmp_path):
    """Copies of the two language models, that may be changed, in places of their own."""
    return [
        shutil.copytree(directory, tmp_path.joinpath("runs", *directory.parts[-5:]))
        for directory in originals["language-model"]
    ]


def names_of(directory):
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(path.relative_to(directory).as_posix() for path in files)


def load(directory, name):
    """Read what has a file of this name in it, as those do who use it."""
    if name == CHECKPOINT:
        read_progress(directory / name, "history")
    elif name == MEASURED:
        read_record(directory / name)
    elif name == WEIGHTS:
        open_model(directory, device="cpu")
    else:
        read_run(directory)


@pytest.mark.parametrize("task", ["language-model", "translation"])
def test_no_file_is_taken_for_another_ones_or_for_one_of_another_run(originals, tmp_path, task):
    names = names_of(originals[task][0])
    further = TRANSLATION_RECORDS if task == "translation" else ()
    assert {*names} == {*RECORDS, WEIGHTS, CHECKPOINT, MEASURED, *further}
    refused = 0
    run = shutil.copytree(originals[task][0], tmp_path / "run")
    for other in originals[task]:
        for source in names:
            for target in names:
                whole = (run / target).read_bytes()
                if whole == (other / source).read_bytes():
                    continue  # both vocabularies are the same if they were learnt together
                shutil.copy(other / source, run / target)
                with pytest.raises(ERRORS):
                    load(run, target)
                (run / target).write_bytes(whole)
                load(run, target)
                refused += 1
    assert refused == 2 * len(names) ** 2 - len(names)


@pytest.mark.parametrize("name", [*RECORDS, WEIGHTS, CHECKPOINT, MEASURED])
def test_the_error_names_file_and_both_runs(copies, name):
    shutil.copy(copies[1] / name, copies[0] / name)
    with pytest.raises(ERRORS) as caught:
        load(copies[0], name)
    message = str(caught.value)
    # Of a whole config.json of another run, the others are what does not fit.
    assert ("provenance.json" if name == "config.json" else name.split("/")[-1]) in message or (
        name == MEASURED
    )
    assert "it belongs to the run language-model/grammar/quick/sigmoid_" in message
    assert "/seed-1 (" in message
    assert "/seed-2 (" in message
    if name != MEASURED:
        assert "put back a good copy" in message


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json", "provenance.json"])
def test_everyone_who_reads_records_finds_those_of_another_run(copies, tmp_path, monkeypatch, name):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    run = read_run(copies[0])
    assert [entry["state"] for entry in list_runs(tmp_path / "runs")] == ["finished"] * 2
    shutil.copy(copies[1] / name, copies[0] / name)
    entries = list_runs(tmp_path / "runs")
    assert [entry["state"] for entry in entries] == ["damaged", "finished"]
    assert name in entries[0]["problem"]
    for reader in (
        partial(find_runs, "quick"),
        partial(release, copies[0], tmp_path / "model"),
        partial(train_or_load, prepare(tiny(gate="sigmoid", seed=1), device="cpu"), False),
    ):
        with pytest.raises(RunError, match=name):
            reader()
    # Published unread, they would be found by g2lstm verify.
    copy_records([run], tmp_path / "results")
    (tmp_path / "results/tables").mkdir()
    write_manifest(tmp_path / "results")
    checks = {check.kind: check.failures for check in verify(tmp_path / "results")}
    (failure,) = checks["records of runs agree with each other"]
    assert name in failure.problem
    assert "/seed-2 (" in failure.problem


def test_weights_of_another_run_are_neither_measured_nor_released_nor_used(copies, tmp_path):
    shutil.copy(copies[1] / WEIGHTS, copies[0] / WEIGHTS)
    run = read_run(copies[0])
    for reader in (
        partial(load_trained, run, device="cpu"),
        partial(Measurement("more", lambda trained: 1, ("files",)).of, run),
        partial(release, copies[0], tmp_path / "model"),
        partial(open_model, copies[0], device="cpu"),
    ):
        with pytest.raises(CheckpointError, match=r"model\.safetensors .*seed-2 .*not to .*seed-1"):
            reader()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", [CHECKPOINT, WEIGHTS, "provenance.json"])
def test_a_begun_run_does_not_go_on_with_a_file_of_another(copies, tmp_path, monkeypatch, name):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    experiment = prepare(tiny(gate="sigmoid", seed=1), device="cpu")
    whole = read_run(copies[0])
    (copies[0] / "summary.json").unlink()
    before = (copies[0] / name).read_bytes()
    shutil.copy(copies[1] / name, copies[0] / name)
    with pytest.raises((RunError, CheckpointError), match=rf"{name}.*seed-2 .*not to .*seed-1"):
        train_or_load(experiment, progress_bar=False)
    assert not (copies[0] / "summary.json").exists()
    (copies[0] / name).write_bytes(before)
    assert train_or_load(experiment, progress_bar=False).summary == whole.summary


def test_weights_of_another_epoch_are_not_those_that_were_tested(copies):
    saved = open_model(copies[0], device="cpu")
    about = read_progress(copies[0] / WEIGHTS)
    saved.model.embedding.weight.data.mul_(2)
    save_checkpoint(copies[0] / WEIGHTS, saved.model, progress=about)
    with pytest.raises(CheckpointError, match="not the one that the run ended with"):
        open_model(copies[0], device="cpu")


def leaves(value, path=()):
    """The paths of all numbers in a JSON value."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from leaves(part, (*path, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


@settings(max_examples=60)
@given(st.data())
def test_any_changed_number_is_found(originals, tmp_path_factory, data):
    task = data.draw(st.sampled_from(sorted(originals)))
    records = [name for name in names_of(originals[task][0]) if "json" in name]
    name = data.draw(st.sampled_from(records))
    run = shutil.copytree(originals[task][0], tmp_path_factory.mktemp("changed") / "run")
    lines = (run / name).read_text().splitlines() if name.endswith("jsonl") else None
    line = data.draw(st.integers(0, len(lines) - 1)) if lines else None
    value = json.loads(lines[line] if lines else (run / name).read_text())
    numbers = list(leaves(value))
    if not numbers:
        return  # translations, or the header of the metrics
    *way, last = data.draw(st.sampled_from(numbers))
    place = value
    for key in way:
        place = place[key]
    place[last] = data.draw(
        st.one_of(st.just(place[last] / 2), st.integers(), st.floats(allow_nan=False)).filter(
            lambda number: (number, type(number)) != (place[last], type(place[last]))
        )
    )
    if lines:
        lines[line] = json.dumps(value)
    text = "".join(f"{text}\n" for text in lines) if lines else json.dumps(value)
    (run / name).write_text(text)
    with pytest.raises(ERRORS, match=r"was changed|ended with|header"):
        load(run, name)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], lines[1].replace("}", ', "more": 1}')],
        lambda lines: [lines[0], lines[0], lines[1]],
        lambda lines: [],
    ],
)
def test_metrics_cut_off_or_added_to(copies, change):
    path = copies[0] / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged or another run's"):
        read_run(copies[0])
    (copies[0] / "summary.json").unlink()  # as of a run under way
    (entry, _) = list_runs(copies[0].parents[4])
    assert entry["state"] == "damaged"


def test_a_record_with_a_header_made_to_fit_is_found_by_the_summary(copies):
    path = copies[0] / "metrics.jsonl"
    rows = read_rows(path)
    identity.write_rows(path, [rows[0] | {"valid_loss": 1.0, "valid_perplexity": math.e}])
    with pytest.raises(RunError, match=r"metrics\.jsonl .*not the one that the run ended with"):
        read_run(copies[0])


@pytest.mark.parametrize("name", [*RECORDS, WEIGHTS, MEASURED])
def test_a_file_whose_header_was_taken_away(copies, name):
    path = copies[0] / name
    content = path.read_bytes()
    if name == WEIGHTS:
        model = open_model(copies[0], device="cpu").model
        bare = path.parents[1] / "bare"
        save_checkpoint(bare, model, progress=read_progress(path))
        bare.rename(path)
    elif name == "metrics.jsonl":
        path.write_bytes(content[content.index(b"\n") + 1 :])
    else:
        value = json.loads(content)
        del value["header"]
        path.write_text(json.dumps(value))
    problem = "does not say that it belongs to the run|to another one"
    with pytest.raises(ERRORS, match=problem):
        load(copies[0], name)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["header"].update(format="g2lstm run 3"),
        lambda value: value["header"].pop("format"),
        lambda value: value["header"].pop("sha256"),
        lambda value: value["header"].update(run=3),
        lambda value: value.update(header=[]),
        lambda value: value.update(header=None),
    ],
)
def test_a_header_of_another_shape_is_an_error(copies, change):
    for name in ("summary.json", "config.json"):
        whole = (copies[0] / name).read_text()
        value = json.loads(whole)
        change(value)
        (copies[0] / name).write_text(json.dumps(value))
        with pytest.raises(RunError, match=name):
            read_run(copies[0])
        (copies[0] / name).write_text(whole)


def test_a_configuration_that_was_edited_after_the_training(copies):
    path = copies[0] / "config.json"
    path.write_text(path.read_text().replace('"gate": "sigmoid"', '"gate": "gumbel"'))
    for reader in (read_run, partial(open_model, device="cpu")):
        with pytest.raises((RunError, ModelError), match=r"config\.json .*it was changed"):
            reader(copies[0])


def test_a_run_of_the_first_format_is_read_and_measured(copies):
    before = read_run(copies[0])
    without_headers(copies[0])
    assert run_of(copies[0] / "config.json") is None
    assert read_run(copies[0]) == before
    check_place(copies[0])
    trained = load_trained(before, device="cpu")
    assert MEASUREMENT.of(before) == {"sum": 1.5}
    assert Measurement("new", lambda trained: 2, ("files",)).of(before) == 2
    assert "header" not in json.loads((copies[0] / "measurements/new.json").read_text())
    load_best(copies[0] / WEIGHTS, trained.model)


@pytest.mark.parametrize("name", [*RECORDS[1:], WEIGHTS, MEASURED])
def test_a_file_with_a_header_is_not_of_a_run_of_the_first_format(copies, name):
    without_headers(copies[0])
    load(copies[0], name)
    shutil.copy(copies[1] / name, copies[0] / name)
    with pytest.raises(ERRORS, match=r"it belongs to the run .*seed-2 "):
        load(copies[0], name)


def test_a_run_in_the_place_of_another(copies, tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    remove(copies[0])
    copies[1].rename(copies[0])
    (entry,) = list_runs(tmp_path / "runs")
    assert entry["state"] == "damaged"
    assert "/seed-2" in entry["problem"]
    with pytest.raises(RunError, match=r"seed-1 is the place .* belongs to the run .*seed-2"):
        find_runs("quick")


def test_weights_by_themselves_are_of_any_run(copies, tmp_path):
    shutil.copy(copies[0] / WEIGHTS, tmp_path / "weights.safetensors")
    model = open_model(copies[0], device="cpu").model
    assert load_checkpoint(tmp_path / "weights.safetensors", model)["epoch"] == 1


# Measurements


def test_a_measurement_of_another_run_is_made_again(copies, capsys):
    run = read_run(copies[0])
    path, whole = copies[0] / MEASURED, (copies[0] / MEASURED).read_bytes()
    shutil.copy(copies[1] / MEASURED, path)
    (problem,) = [p for p in [_problem(path)] if p]
    assert "/seed-2 (" in problem
    assert MEASUREMENT.of(run) == {"sum": 1.5}
    assert "is measured again" in capsys.readouterr().out
    assert read_record(path)["fingerprint"] == run.config["fingerprint"]
    path.write_bytes(whole.replace(b"1.5", b"2.5"))
    assert MEASUREMENT.of(run) == {"sum": 1.5}
    (copies[0] / WEIGHTS).unlink()
    path.write_bytes(whole.replace(b"1.5", b"2.5"))
    with pytest.raises(RunError, match=r"the measurement .*sum\.json is damaged or another run's"):
        MEASUREMENT.of(run)
    with pytest.raises(RunError, match=r"sum\.json is damaged"):
        copy_records([run], copies[0].parents[5] / "results")


def _problem(path):
    try:
        return measurement_problems(path)
    except ValueError as error:
        return str(error)


# Records of translations


def test_records_of_a_translation_are_read_as_they_were_written(originals):
    run = read_run(originals["translation"][0])
    texts = read_translations(run)
    assert len(texts) == len(read_bleu_statistics(run)) == 24
    assert all(isinstance(text, str) for text in texts)
    assert Subwords.load(run.directory / "source_subwords.json").pieces


# Folders of models


@pytest.fixture(scope="module")
def models(originals, tmp_path_factory):
    """Task -> released models of seed 1 and 2, and the first one compressed."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for task, both in originals.items():
        paths = [folder / f"{task}-{name}" for name in ("1", "2", "small")]
        for directory, path in zip(both, paths, strict=False):
            release(directory, path)
        save_compressed(open_model(paths[0], device="cpu"), paths[2], rank=2)
        found[task] = paths
    return found


@pytest.mark.parametrize("task", ["language-model", "translation"])
def test_a_released_model_with_a_file_of_another_is_not_used(models, tmp_path, task, capsys):
    needed = {"config.json", WEIGHTS, "vocabulary.json"}
    needed |= {"source_subwords.json", "target_subwords.json", "compression.json"}
    refused = set()
    for number, path in enumerate(models[task]):
        assert [failure for check in verify(path) for failure in check.failures] == []
        other = models[task][1 if number != 1 else 0]
        for name in sorted(p.name for p in other.iterdir() if p.name not in ("README.md",)):
            if not (path / name).exists() or name == "manifest.json":
                continue
            model = shutil.copytree(path, tmp_path / f"{task}-{number}-{name}")
            shutil.copy(other / name, model / name)
            if name in needed:
                with pytest.raises((ModelError, CheckpointError)):
                    open_model(model, device="cpu")
                refused.add(name)
            write_manifest(model)  # as if it were meant
            assert [failure for check in verify(model) for failure in check.failures]
    assert WEIGHTS in refused
    (tmp_path / "text").write_text("a dog .\n")
    swapped = str(tmp_path / f"{task}-0-{WEIGHTS}")
    command = ["perplexity", swapped, str(tmp_path / "text")]
    assert main(command if task == "language-model" else ["translate", swapped]) != 0
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "/seed-2 (" in error


def test_a_released_model_with_damaged_weights_is_not_used(models, tmp_path):
    for number, path in enumerate(models["language-model"]):
        model = shutil.copytree(path, tmp_path / str(number))
        data = bytearray((model / WEIGHTS).read_bytes())
        data[-3] ^= 16
        (model / WEIGHTS).write_bytes(data)
        with pytest.raises(CheckpointError, match="checksum"):
            open_model(model, device="cpu")


def test_the_identity_goes_from_the_run_into_its_models(originals, models):
    for task, paths in models.items():
        assert run_of(paths[0] / WEIGHTS) == run_of(originals[task][0] / CHECKPOINT)
        assert run_of(paths[2] / WEIGHTS) == run_of(paths[0] / WEIGHTS)
        assert run_of(paths[1] / WEIGHTS) != run_of(paths[0] / WEIGHTS)


def test_another_corpus_makes_another_run(corpora, tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    summaries = {}
    for name, word in (("one", "cat"), ("two", "dog")):
        folder = tmp_path / name / "text"
        folder.mkdir(parents=True)
        for split in ("train", "valid", "test"):
            (folder / f"{split}.txt").write_text(f"the {word} sees a bird\n" * 100)
        monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / f"runs-{name}"))
        summaries[name] = finished(gate="sigmoid", corpus=str(folder)).directory
    # The places are the same, the texts are not.
    assert summaries["one"].parts[-5:] == summaries["two"].parts[-5:]
    for name in ("summary.json", "provenance.json", WEIGHTS):
        whole = (summaries["one"] / name).read_bytes()
        shutil.copy(summaries["two"] / name, summaries["one"] / name)
        with pytest.raises(ERRORS, match="it belongs to the run"):
            load(summaries["one"], name)
        (summaries["one"] / name).write_bytes(whole)


def test_without_a_run_there_is_no_header(tmp_path):
    write_record(tmp_path / "a.json", {"a": [1, 2.5], "header": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, 2.5], "header": 1}
    write_record(tmp_path / "b.json", ["a"])
    assert read_record(tmp_path / "b.json") == ["a"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record(tmp_path / "c.json", {"a": math.nan})
    (tmp_path / "config.json").write_text('{"model_type": "of another library"}')
    write_record(tmp_path / "b.json", ["a"])
    assert read_record(tmp_path / "b.json") == ["a"]
    assert runs.CONFIG == identity.CONFIG
