"""The probe rows a dictionary carries: bounded, of nobody, and what the model made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_concepts_build import make_inputs

from recsae.concepts.inputs import DictionaryInputs
from recsae.concepts.probe_set import PROBE_ROWS, ProbeSet, Reader, load_probe_set, make_probe_set, read_again
from recsae.concepts.splits import UserPart
from recsae.datasets.planted import make_planted
from recsae.errors import CorruptArtifactError


@pytest.fixture(scope="module")
def inputs() -> DictionaryInputs:
    return make_inputs(make_planted(seed=3, n_users=400, n_items=160, n_concepts=8, mean_length=40))


@pytest.fixture(scope="module")
def probe(inputs: DictionaryInputs) -> ProbeSet:
    return make_probe_set(inputs)


def test_a_dictionary_of_an_older_release_has_no_probe_rows_and_a_broken_file_is_refused(tmp_path: Path) -> None:
    assert load_probe_set(tmp_path) is None
    (tmp_path / "probe.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptArtifactError, match="publish the dictionary again"):
        load_probe_set(tmp_path)


def test_probe_rows_are_bounded_read_no_verification_user_and_name_no_user(
    inputs: DictionaryInputs, tmp_path: Path
) -> None:
    inputs = replace(inputs, pseudonyms=[f"somebody-{user}" for user in range(inputs.histories.n_users)])
    probe = make_probe_set(inputs)
    assert 0 < len(probe) <= PROBE_ROWS
    histories = {
        tuple(inputs.histories.of(user).tolist())
        for user in np.flatnonzero(inputs.parts[:-1] == UserPart.VERIFICATION).tolist()
    }
    index = {item_id: at for at, item_id in enumerate(inputs.item_ids, 1)}
    for start, end in zip(probe.windows.start.tolist(), probe.windows.end.tolist(), strict=True):
        assert tuple(index[probe.item_ids[item - 1]] for item in probe.windows.items[start:end]) not in histories
    probe.save(tmp_path)
    assert b"somebody" not in (tmp_path / "probe.safetensors").read_bytes()


def test_probe_rows_are_the_activations_of_their_histories(inputs: DictionaryInputs, probe: ProbeSet) -> None:
    index = np.array([0, *(inputs.item_ids.index(item_id) + 1 for item_id in probe.item_ids)])
    pairs = zip(probe.windows.start.tolist(), probe.windows.end.tolist(), strict=True)
    x = inputs.embed(
        [index[probe.windows.items[start:end]].astype(np.int32) for start, end in pairs],
        np.full(len(probe), -1, np.int32),
    )
    np.testing.assert_allclose(x, probe.x, atol=1e-5)


def test_read_again_by_a_model_that_numbers_items_otherwise_they_are_the_same(
    inputs: DictionaryInputs, probe: ProbeSet
) -> None:
    order = np.random.default_rng(0).permutation(inputs.n_items)
    to_old = np.concatenate([[0], order + 1])
    reader = Reader(
        [inputs.item_ids[at] for at in order.tolist()],
        lambda histories, users: inputs.embed([to_old[history].astype(np.int32) for history in histories], users),
        inputs.max_history,
        inputs.item_vectors[to_old] if inputs.item_vectors is not None else None,
    )
    reading = read_again(probe, reader)
    np.testing.assert_allclose(reading.new, reading.old, atol=1e-5)
    assert reading.new_vectors is not None
    assert reading.old_vectors is not None
    np.testing.assert_array_equal(reading.new_vectors, reading.old_vectors)


def test_rows_with_an_item_the_data_no_longer_have_are_left_out(inputs: DictionaryInputs, probe: ProbeSet) -> None:
    gone = probe.windows.items[probe.windows.end[0] - 1]
    known = [item_id if item_id != probe.item_ids[gone - 1] else "another" for item_id in inputs.item_ids]
    reading = read_again(probe, Reader(known, inputs.embed, inputs.max_history))
    held = [
        gone in probe.windows.items[start:end]
        for start, end in zip(probe.windows.start.tolist(), probe.windows.end.tolist(), strict=True)
    ]
    assert 0 < sum(held) < len(probe)
    np.testing.assert_array_equal(reading.old, probe.x[~np.array(held)])
    np.testing.assert_allclose(reading.new, reading.old, atol=1e-5)
    nothing = read_again(probe, Reader(["another"], inputs.embed, inputs.max_history))
    assert len(nothing.new) == len(nothing.old) == 0
