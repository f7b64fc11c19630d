"""What people read about a refresh and about edits."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from recsae.cli import identity_views
from recsae.v1 import interpreter_pb2


def text_of(view: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=220).print(view)
    return out.getvalue()


def fate(
    name: str, status: str, mass: float, to_ids: tuple[str, ...] = (), kept: bool | None = None
) -> interpreter_pb2.Fate:
    made = interpreter_pb2.Fate(concept_id=name, label=f"On {name}", status=status, mass=mass, to_ids=to_ids)
    if kept is not None:
        made.verified, made.kept = True, kept
    return made


def test_a_lineage_shows_fates_with_most_activation_first_and_what_bounds_them() -> None:
    fates = [
        fate("c-1", "lost", 0.1, kept=False),
        fate("c-2", "split", 0.6, ("c-8", "c-9")),
        fate("c-3", "stable", 0.3),
    ]
    reply = interpreter_pb2.GetLineageResponse(
        ancestors=["0" * 16], probe_rows=8192, explained=0.89, by_chance=0.01, verified=2, judged=1, kept=0,
        counts=[interpreter_pb2.FateCount(status="split", count=1, share_of_mass=0.6)], fates=fates,
    )  # fmt: skip
    shown = text_of(identity_views.lineage(reply, limit=2))
    assert (
        "0 of 2 verified concepts kept (0 of 1 that could be judged again); by chance 1.0 % of latents are matched"
        in shown
    )
    assert "agree on 89.0 % of the variance. Compared on 8,192 rows." in shown
    assert "c-8, c-9" in shown
    assert shown.index("c-2") < shown.index("c-3")
    assert "On c-1" not in shown
    assert "2 of 3 concepts" in shown


def test_the_first_dictionary_has_no_lineage() -> None:
    assert "no dictionary before" in text_of(identity_views.lineage(interpreter_pb2.GetLineageResponse(), 20))


def test_edits_in_doubt_say_why_and_others_that_they_are_shown() -> None:
    edits = [
        interpreter_pb2.LabelEdit(
            concept_id="c-1", label="[Slashers]", machine_label="Horror", actor="ann", revision=2
        ),
        interpreter_pb2.LabelEdit(concept_id="c-2", note="why?", doubt="edit of a concept that was lost"),
    ]
    shown = text_of(identity_views.edits(interpreter_pb2.ListLabelEditsResponse(edits=edits)))
    first, second = (next(line for line in shown.splitlines() if name in line) for name in ("c-1", "c-2"))
    assert "[Slashers]" in first
    assert first.rstrip().endswith("shown")
    assert "(the machine's)" in second
    assert "edit of a concept that was lost" in second


@pytest.mark.parametrize(
    ("label", "words"), [("Slashers", "Slashers  instead of: Horror"), ("", "the machine's words are shown again")]
)
def test_a_written_edit_says_what_is_shown_now(label: str, words: str) -> None:
    edit = interpreter_pb2.LabelEdit(concept_id="c-1", label=label, machine_label="Horror", revision=3)
    assert words in text_of(identity_views.edit(edit))


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (interpreter_pb2.Origin(status="new"), "new at the last refresh"),
        (interpreter_pb2.Origin(status="merged", from_ids=["c-1", "c-2"]), "merged, from c-1, c-2"),
        (interpreter_pb2.Origin(status="stable", from_ids=["c-1"], kept=True), "its old rule still verifies"),
        (interpreter_pb2.Origin(status="drifted", from_ids=["c-1"], kept=False), "its old rule no longer verifies"),
    ],
)
def test_the_origin_of_a_concept_is_one_line(origin: interpreter_pb2.Origin, words: str) -> None:
    assert words in identity_views.origin(origin)
