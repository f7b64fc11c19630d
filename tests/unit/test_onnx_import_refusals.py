"""What keeps a foreign graph from being imported, and which sentence says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.unit import foreign_graphs as foreign
from tests.unit.foreign_graphs import N_ITEMS
from tests.unit.importing_graphs import USERS, imported

from recsae.errors import InvalidRequestError
from recsae.recommenders.onnx_study import Statements, study


@pytest.mark.parametrize(
    ("activations", "stated", "n_items", "message"),
    [
        (["nowhere"], Statements(), N_ITEMS, "makes no tensor 'nowhere'; run the command without --activation"),
        (["vectors"], Statements(), N_ITEMS, r"\[batch, 6, 8\]; an activation is float32 or float16 \[batch, d\]"),
        (["activation"], Statements(), N_ITEMS - 2, "have 20 columns, and there are 18 items"),
        (["activation"], Statements(max_history=9), N_ITEMS, "--max-history 9, but 'history' takes 6 items"),
        (["activation"], Statements(scores="nowhere"), N_ITEMS, "makes no tensor 'nowhere'; its outputs are scores"),
        (["activation"], Statements(scores="vectors"), N_ITEMS, r"'vectors' is \[batch, 6, 8\]"),
        (["activation"], Statements(first_index=0), N_ITEMS, "say with --padding-index"),
        (["activation", "history"], Statements(), N_ITEMS, "makes no tensor 'history'"),
    ],
)
def test_what_does_not_fit_is_refused(
    activations: list[str], stated: Statements, n_items: int, message: str, tmp_path: Path
) -> None:
    path = foreign.by_hand(tmp_path / "model.onnx", np.float32, "rows")
    with pytest.raises(InvalidRequestError, match=message):
        imported(path, stated, tmp_path / "bundle", activations, n_items=n_items)


def test_a_cut_the_scores_do_not_depend_on_is_refused(tmp_path: Path) -> None:
    path = foreign.export(
        foreign.TwoOutputs(), tmp_path / "model.onnx", {"history": foreign.histories()}, ("hidden", "scores")
    )
    model = onnx.load(str(path))
    model.graph.node.append(helper.make_node("Neg", ["hidden"], ["aside"]))
    onnx.save(model, str(path))
    with pytest.raises(
        InvalidRequestError, match="do not depend on 'aside': a head that starts there would know nothing"
    ):
        imported(path, Statements(), tmp_path / "bundle", ["aside"])


def test_scores_that_are_not_the_originals_are_refused_with_their_place(tmp_path: Path) -> None:
    path = foreign.by_hand(tmp_path / "model.onnx", np.float32, "rows", random=True)
    with pytest.raises(InvalidRequestError, match=r"differ from the original: \d+ of 5120 scores, most at subject \d+"):
        imported(path, Statements(), tmp_path / "bundle", ["activation"])


def test_a_scalar_of_the_whole_batch_is_made_in_the_head(tmp_path: Path) -> None:
    """It has no row per subject, so it cannot cross; what it is made of can."""
    path = foreign.by_hand(tmp_path / "model.onnx", np.float32, "rows", mixes=True)
    studied = study(path, Statements())
    cut = next(one for one in studied.candidates() if one.name == "activation")
    assert cut.crossing == ("inner",)


def test_users_without_a_list_of_ids_are_refused(tmp_path: Path) -> None:
    path = foreign.export(foreign.Factors(), tmp_path / "model.onnx", {"user_id": foreign.numbers()})
    with pytest.raises(InvalidRequestError, match="--users"):
        imported(path, Statements(first_user=0), tmp_path / "bundle")


def test_counting_wrongly_is_answered_with_the_option_that_may_help(tmp_path: Path) -> None:
    path = foreign.export(foreign.Factors(), tmp_path / "model.onnx", {"user_id": foreign.numbers()})
    with pytest.raises(InvalidRequestError, match="--first-user 0"):
        imported(path, Statements(), tmp_path / "bundle", users=USERS)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph at all")
    with pytest.raises(InvalidRequestError, match=r"model\.onnx (cannot be read as ONNX|holds no ONNX graph)"):
        study(tmp_path / "model.onnx", Statements())
