"""How people see where concepts come from and what was written about them."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import share, table
from recsae.v1 import interpreter_pb2


def edit(one: interpreter_pb2.LabelEdit) -> RenderableType:
    """What became of an edit just written."""
    if not one.label and not one.note:
        return Text(f"{one.concept_id}: taken back; the machine's words are shown again (revision {one.revision})")
    words = Text.assemble((f"{one.concept_id}  ", "bold"), (one.label or one.machine_label, "bold cyan"))
    if one.label:
        words.append(f"  instead of: {one.machine_label}")
    words.append(f"\nrevision {one.revision}; undo: recsae concepts label {one.concept_id} --reason ...")
    return words


def edits(reply: interpreter_pb2.ListLabelEditsResponse) -> RenderableType:
    """A table of edits; one that is not shown says why."""
    rows = [
        (
            one.concept_id,
            escape(one.label or "(the machine's)"),
            escape(one.machine_label),
            escape(one.note),
            f"{escape(one.actor)}, {one.at.ToDatetime():%Y-%m-%d}",
            str(one.revision),
            escape(one.doubt) or "shown",
        )
        for one in reply.edits
    ]
    columns = ["concept", "label", "the machine's", "note", "by", ">revision", "state"]
    return table(f"{len(rows)} {'edit' if len(rows) == 1 else 'edits'} of labels", columns, rows)


def lineage(reply: interpreter_pb2.GetLineageResponse, limit: int) -> RenderableType:
    """Counts per fate, what bounds them, and the concepts with most activation."""
    if not reply.ancestors:
        return Text("There was no dictionary before this one.")
    counts = [
        (one.status, str(one.count), share(one.share_of_mass), str(one.verified)) for one in reply.counts if one.count
    ]
    head = f"What became of dictionary {reply.ancestors[0]}"
    parts: list[RenderableType] = [
        table(head, ["fate", ">live concepts", ">of activation", ">verified"], counts),
        Text(_sentence(reply)),
    ]
    largest = sorted(reply.fates, key=lambda fate: -fate.mass)[:limit]
    rows = [
        (
            fate.concept_id,
            escape(fate.label),
            fate.status,
            ", ".join(fate.to_ids),
            f"{fate.cosine:.2f}",
            f"{fate.correlation:.2f}",
            share(fate.mass),
            _kept(fate),
        )
        for fate in largest
    ]
    columns = ["concept", "label", "fate", "now", ">cosine", ">firing r", ">of activation", "kept"]
    parts.append(table(f"{len(rows)} of {len(reply.fates)} concepts", columns, rows))
    return Group(*parts)


def origin(one: interpreter_pb2.Origin) -> str:
    """Where a concept comes from, in a line."""
    if not one.from_ids:
        return "new at the last refresh"
    words = f"{one.status}, from {', '.join(one.from_ids)} (cosine {one.cosine:.2f}, firing r {one.correlation:.2f})"
    if one.HasField("kept"):
        few = "; too few cases are left to verify its old rule on"
        failed = few if one.too_few_cases else "; its old rule no longer verifies"
        words += "; its old rule still verifies" if one.kept else failed
    return words


def _sentence(reply: interpreter_pb2.GetLineageResponse) -> str:
    kept = f"{reply.kept} of {reply.verified} verified concepts kept" if reply.verified else "None was verified before"
    if reply.judged < reply.verified:
        kept += f" ({reply.kept} of {reply.judged} that could be judged again)"
    words = f"{kept}; by chance {share(reply.by_chance)} of latents are matched"
    if reply.HasField("explained"):
        words += f"; the models' spaces agree on {share(reply.explained)} of the variance"
    return f"{words}. Compared on {reply.probe_rows:,} rows."


def _kept(fate: interpreter_pb2.Fate) -> str:
    if not fate.HasField("kept"):
        return ""
    if fate.too_few_cases:
        return "too few cases"
    return "yes" if fate.kept else "no"
