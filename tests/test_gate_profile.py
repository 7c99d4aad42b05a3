"""Rows of the profile against recorded gates, and against each other."""

import numpy as np
import pytest
import torch

from g2lstm.corpora import END
from g2lstm.gate_profile import at_place, measure_gate_profile, paper_place, place_name
from g2lstm.inspection import record_gates
from g2lstm.presets import PRESETS
from g2lstm.subwords import BEGIN
from tiny_runs import text_corpus, trained, untrained

KINDS = ("input", "forget")
MODES = ("evaluation", "training", "sentence")


pytestmark = pytest.mark.usefixtures("corpora")


@pytest.fixture(scope="module")
def reader(corpora):
    return untrained(gate="gumbel")


def assert_is_profile(row, values):
    """Histogram, saturation and mean of gate values by kind, counted one by one."""
    for kind in KINDS:
        flat = values[kind].double().numpy().ravel()
        counts = np.zeros(10)
        for value in flat:
            counts[min(int(value * 10), 9)] += 1
        assert row[kind]["histogram"] == pytest.approx(counts / len(flat), abs=2 / len(flat))
        saturated = np.mean([value < 0.1 or value > 0.9 for value in flat])
        assert row[kind]["saturation"] == pytest.approx(saturated)
        assert row[kind]["mean"] == pytest.approx(flat.mean(), abs=1e-5)


def gates(records):
    return {
        kind: torch.cat([getattr(r, f"{kind}_gate")[r.running].flatten() for r in records])
        for kind in KINDS
    }


def assert_layers_add_up(rows, sizes):
    """The first row is the mean of the others, weighted by how many values each has."""
    together, *layers = rows
    shares = np.array(sizes) / sum(sizes)
    assert len(layers) == len(sizes)
    for kind in KINDS:
        for name in ("histogram", "saturation", "mean"):
            parts = np.array([row[kind][name] for row in layers])
            expected = (shares @ parts.reshape(len(layers), -1)).ravel()
            assert np.ravel(together[kind][name]) == pytest.approx(expected, abs=1e-6)
    assert {together[name] for name in ("module", "layer", "reverse")} == {None}


def test_the_profile_of_a_language_model_by_hand(reader):
    found = measure_gate_profile(reader)
    assert set(found) == set(MODES), "of a language model the paper shows no histogram"
    model, test = reader.model, reader.task.corpus.test
    length = 1420 // 20
    strands = torch.stack([test[k * length : (k + 1) * length] for k in range(20)], 1)
    with record_gates(model) as records, torch.no_grad():
        model(strands)
    rows = found["evaluation"]
    assert_is_profile(rows[0], gates(records))
    assert [(row["module"], row["layer"], row["reverse"]) for row in rows[1:]] == [
        ("layers.0", 0, False),
        ("layers.1", 0, False),
    ]
    for row, record in zip(rows[1:], records, strict=True):
        assert_is_profile(row, gates([record]))
    for mode in MODES:
        assert_layers_add_up(found[mode], [10, 8])


def test_the_sentence_is_the_first_of_ten_words_read_after_an_end_mark(tmp_path):
    sentences = [
        "a cat sees the small dog and the horse",
        "the horse sees a cat and the small dog now",
        "a small cat sees the small dog and the horse now and then",
    ]
    reader = untrained(corpus=text_corpus(tmp_path / "pets", sentences * 8))
    tokens = reader.task.corpus.vocabulary.encode([END, *sentences[1].split()])
    with record_gates(reader.model) as records, torch.no_grad():
        reader.model(torch.tensor(tokens)[:, None])
    assert_is_profile(measure_gate_profile(reader)["sentence"][0], gates(records))


@pytest.mark.parametrize("gate", ["sigmoid", "gumbel"])
def test_training_mode_has_noise_and_temperature_of_gumbel_gates_only(corpora, gate):
    found = measure_gate_profile(untrained(gate=gate))
    assert (found["training"] == found["evaluation"]) is (gate == "sigmoid")


def test_the_profile_depends_on_no_random_state(reader):
    torch.manual_seed(1)
    found = measure_gate_profile(reader)
    torch.manual_seed(2)
    assert measure_gate_profile(reader) == found
    assert not reader.model.training


@pytest.mark.parametrize("task", ["language-model", "translation"])
def test_all_layers_together_are_what_the_run_recorded(task):
    finished = trained(task)
    found = measure_gate_profile(finished)
    recorded = finished.run.summary["gates"]
    assert set(recorded) == {"evaluation", "training"}
    for mode, summary in recorded.items():
        for kind in KINDS:
            for name, value in summary[kind].items():
                assert found[mode][0][kind][name] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("input_feeding", [False, True])
def test_the_profile_of_a_translation_leaves_padding_out(corpora, input_feeding):
    overrides = {"encoder_layers": 2, "input_feeding": input_feeding}
    translator = untrained("translation", overrides=overrides)
    found = measure_gate_profile(translator)
    pairs = translator.task.pairs["test"]
    encoder = [("encoder", 0, False), ("encoder", 0, True), ("upper_encoder", 0, False)]
    decoder = [("decoder", 0, False), ("upper_decoder", 0, False), ("upper_decoder", 1, False)]
    assert set(found) == {*MODES, "training pairs"}
    for mode in MODES:
        keys = [(row["module"], row["layer"], row["reverse"]) for row in found[mode][1:]]
        assert keys == encoder + decoder
    source = sum(map(len, pairs.sources))
    target = pairs.target_tokens
    assert_layers_add_up(found["evaluation"], [source] * 3 + [target] * 3)
    place = next(i for i, target in enumerate(pairs.targets) if len(target) >= 10)
    source, target = len(pairs.sources[place]), len(pairs.targets[place]) + 1
    assert_layers_add_up(found["sentence"], [source] * 3 + [target] * 3)


def test_where_all_sentences_are_short_the_longest_is_taken(tmp_path):
    sentences = ["a cat sees the dog", "a small cat sees the small dog now", "the dog sleeps"] * 12
    reader = untrained(corpus=text_corpus(tmp_path / "pets", sentences))
    assert len(reader.task.corpus.test) < 1420, "less text than the profile would take"
    found = measure_gate_profile(reader)
    tokens = reader.task.corpus.vocabulary.encode([END, *sentences[1].split()])
    with record_gates(reader.model) as records, torch.no_grad():
        reader.model(torch.tensor(tokens)[:, None])
    assert_is_profile(found["sentence"][0], gates(records))
    strands = reader.task.corpus.test[: len(reader.task.corpus.test) // 20 * 20].view(20, -1).T
    with record_gates(reader.model) as records, torch.no_grad():
        reader.model(strands)
    assert_is_profile(found["evaluation"][0], gates(records))


def test_where_all_translations_are_short_the_longest_is_taken(tmp_path):
    texts = ["a cat", "a black cat", "cats"] * 3
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text("".join(f"{t}\n" for t in texts))
    translator = untrained("translation", corpus=str(tmp_path))
    pairs, model = translator.task.pairs["test"], translator.model
    assert max(map(len, pairs.targets)) == len(pairs.targets[1]) < 10
    found = measure_gate_profile(translator)["sentence"]
    source, target = torch.tensor(pairs.sources[1])[:, None], torch.tensor(pairs.targets[1])
    inputs = torch.cat([torch.tensor([2]), target])[:, None]
    with record_gates(model) as records, torch.no_grad():
        model(source, torch.tensor([len(source)]), inputs)
    assert_is_profile(found[0], gates(records))


def test_the_papers_place_is_the_first_layer_of_the_decoder_or_all_of_a_language_model(reader):
    translator = untrained("translation", overrides={"encoder_layers": 2})
    rows = measure_gate_profile(translator)["evaluation"]
    assert [place_name(row) for row in rows] == [
        "all layers", "encoder layer 1", "encoder layer 1, backwards", "encoder layer 2",
        "decoder layer 1", "decoder layer 2", "decoder layer 3",
    ]  # fmt: skip
    pairs, model = translator.task.pairs["test"], translator.model
    values = {kind: [] for kind in KINDS}
    for source, target in zip(pairs.sources, pairs.targets, strict=True):
        memory = model.encode(torch.tensor(source)[:, None], torch.tensor([len(source)]))
        inputs = torch.tensor([BEGIN, *target])[:, None]
        with record_gates(model) as records, torch.no_grad():
            model.decode(inputs, model.start(memory), memory)
        for kind in KINDS:
            values[kind].append(getattr(records[0], f"{kind}_gate").flatten())
    values = {kind: torch.cat(parts) for kind, parts in values.items()}
    assert_is_profile(paper_place("translation", rows), values)

    rows = measure_gate_profile(reader)["evaluation"]
    assert [place_name(row) for row in rows] == ["all layers", "layer 1", "layer 2"]
    assert paper_place("language-model", rows) is rows[0]
    assert at_place(rows, "layer 2") is rows[2]
    with pytest.raises(ValueError, match="'decoder layer 1', only at: all layers; layer 1; layer"):
        paper_place("translation", rows)


@pytest.mark.parametrize(("limit", "number"), [(10_000, 100), (40, 40)])
def test_the_decoders_first_layer_is_measured_on_training_pairs_too(
    corpora, limit, number, monkeypatch
):
    monkeypatch.setitem(PRESETS["translation"]["quick"].analysis, "gate_pairs", limit)
    translator = untrained("translation")
    pairs, model = translator.task.pairs["train"], translator.model
    assert len(pairs) == 100
    chosen = range(100) if number == 100 else [i * 5 // 2 for i in range(40)]
    values = {kind: [] for kind in KINDS}
    for i in chosen:
        source, target = torch.tensor(pairs.sources[i])[:, None], pairs.targets[i]
        memory = model.encode(source, torch.tensor([len(source)]))
        inputs = torch.tensor([BEGIN, *target])[:, None]
        with record_gates(model.decoder) as records, torch.no_grad():
            model.decode(inputs, model.start(memory), memory)
        for kind in KINDS:
            values[kind].append(getattr(records[0], f"{kind}_gate").flatten())
    found = measure_gate_profile(translator)
    row = paper_place("translation", found["training pairs"])
    assert row["pairs"] == number
    assert_is_profile(row, {kind: torch.cat(parts) for kind, parts in values.items()})
    assert row["input"] != paper_place("translation", found["evaluation"])["input"]
