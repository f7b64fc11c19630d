"""How concepts, lists, previews and receipts look in a terminal. Not here: explanations (`explain_views`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli import example_views
from recsae.cli.effects_view import effects, range_words
from recsae.cli.identity_views import origin
from recsae.cli.llm_views import llm_lines
from recsae.cli.output import share, shortened, table
from recsae.cli.verdict_views import misses, scores
from recsae.v1 import common_pb2, interpreter_pb2, steering_pb2

_SHOWN_HISTORY = 5
_TITLE = 30


def concept_list(reply: interpreter_pb2.ListConceptsResponse) -> RenderableType:
    """A page of concepts."""
    rows = [_concept_row(concept) for concept in reply.concepts]
    of = f" of {escape(reply.model)}" if reply.model else ""
    title = f"{len(reply.concepts)} of {reply.total} concepts{of}, SAE {reply.triple.sae_version}"
    return table(title, ["concept", "label", "kind", "status", ">confidence", ">control", ">density", "promotes"], rows)


def concept_hits(reply: interpreter_pb2.SearchConceptsResponse) -> RenderableType:
    """Search results."""
    rows = [
        (hit.concept.id, escape(hit.concept.label), escape(hit.matched_in), f"{hit.score:.2f}") for hit in reply.hits
    ]
    return table(
        f"{len(rows)} {'concept' if len(rows) == 1 else 'concepts'} found",
        ["concept", "label", "found in", ">score"],
        rows,
    )


def concept_detail(detail: interpreter_pb2.ConceptDetail) -> RenderableType:
    """Everything about one concept."""
    concept = detail.concept
    head = Text.assemble(
        (f"{concept.id}  ", "bold"),
        (concept.label, "bold cyan"),
        f"  ({kind(concept.kind)}, {status(concept.status)})\n",
        f"rule: {concept.predicate or 'none was found'}\n",
        f"fires on {share(concept.density)} of positions; {detail.positives} verification cases "
        f"of {detail.users} users; effective deciding items {detail.effective_items:.1f}\n",
        f"label by a person, the machine's: {concept.machine_label}\n" if concept.machine_label else "",
        f"note: {concept.note}\n" if concept.note else "",
        f"at the last refresh: {origin(detail.origin)}\n" if detail.HasField("origin") else "",
    )  # fmt: skip
    return Group(
        head,
        scores(detail),
        misses(detail),
        example_views.health(detail),
        *llm_lines(detail),
        *(evidence_lines(detail.evidence)),
        Text(""),
        example_views.examples("Random firings of strength .5 or more", detail.random_evidence),
        example_views.examples("Near misses: just below the cut", detail.near_misses),
        example_views.bands(detail.bands),
        _items("Promotes", detail.promoted),
        _items("Suppresses", detail.suppressed),
        _neighbours("Fires together with", "correlation", detail.neighbours),
        _neighbours("Decodes in like directions", "cosine", detail.decoder_neighbours),
        effects(detail),
    )


def evidence_lines(evidence: Iterable[interpreter_pb2.Evidence], limit: int = 5) -> list[Text]:
    """One line per top user: recent titles, oldest first, the deciding one marked."""
    lines = []
    for number, case in enumerate(list(evidence)[:limit], start=1):
        line = Text(f"  user {number} (strength {case.strength:.2f}): ")
        for position, item in enumerate(_around_deciding(case.items)):
            line.append(" · " if position else "")
            title = shortened(item.title, _TITLE)
            line.append(f"▶{title}◀" if item.deciding else title, "bold yellow" if item.deciding else "dim")
        lines.append(line)
    return lines


def _around_deciding(items: Sequence[interpreter_pb2.EvidenceItem]) -> Sequence[interpreter_pb2.EvidenceItem]:
    """The newest items, and the deciding one before them when it is older."""
    newest = list(items[-_SHOWN_HISTORY:])
    older = [item for item in items[:-_SHOWN_HISTORY] if item.deciding]
    return [*older, *newest[len(older) :]]


def ranked(title: str, items: Sequence[common_pb2.ScoredItem]) -> RenderableType:
    """One ranked list."""
    rows = [(str(rank), title_of(item), f"{item.score:.4f}") for rank, item in enumerate(items, start=1)]
    return table(title, [">#", "item", ">score"], rows)


def before_after(
    before: Sequence[common_pb2.ScoredItem], after: Sequence[common_pb2.ScoredItem], title: str
) -> RenderableType:
    """Two lists side by side with rank moves."""
    rank_of = {item.item_id: rank for rank, item in enumerate(before, start=1)}
    rows = [
        (
            str(rank),
            title_of(old),
            f"{old.score:.3f}",
            title_of(new),
            f"{new.score:.3f}",
            _move(rank_of.get(new.item_id), rank),
        )
        for rank, (old, new) in enumerate(zip(before, after, strict=False), start=1)
    ]
    return table(title, [">#", "before", ">score", "after", ">score", ">move"], rows)


def receipt(value: common_pb2.Receipt) -> Text:
    """A receipt in one line."""
    if not value.applied:
        reason = common_pb2.UnsteeredReason.Name(value.reason).removeprefix("UNSTEERED_REASON_").lower()
        return Text(f"Receipt: unsteered ({reason}), plan revision {value.plan_revision}", "dim")
    policies = ", ".join(f"{ref.policy_id} rev {ref.revision}" for ref in value.applied)
    return Text(
        f"Receipt: {policies}; plan revision {value.plan_revision}; |dx| = {value.delta_norm:.3f} "
        f"({share(value.delta_share)} of |x|); model {value.triple.model_version}, SAE {value.triple.sae_version}, "
        f"dictionary {value.triple.dictionary_version}",
        "green",
    )


def preview(reply: steering_pb2.PreviewResponse) -> RenderableType:
    """Before and after of a preview, with strengths and receipt."""
    strengths = [
        (
            change.concept_id,
            escape(change.label),
            f"{change.before:.2f}",
            f"{change.target:.2f}",
            range_words(change.safe_range) if change.HasField("safe_range") else "not measured",
        )
        for change in reply.strengths
    ]
    several = f" of {reply.rows} rows, where strongest" if reply.rows > 1 else ""
    return Group(
        table(f"Strengths{several}", ["concept", "label", ">before", ">asked for", "safe doses"], strengths),
        before_after(reply.before, [item.item for item in reply.after], f"Preview, overlap {reply.overlap:.2f}"),
        _came_and_went(reply),
        receipt(reply.receipt),
        Text(
            f"Not known to be safe: {reply.outside_safe_range}" if reply.outside_safe_range else "Within what is safe."
        ),
    )


def _came_and_went(reply: steering_pb2.PreviewResponse) -> Text:
    """Which items entered and left, and how far the others moved."""
    title = {item.item_id: item.title or item.item_id for item in (*reply.before, *(one.item for one in reply.after))}
    parts: list[str | tuple[str, str]] = []
    for name, ids in (("Entered", reply.entered_item_ids), ("Left", reply.left_item_ids)):
        titles = " · ".join(title[one] for one in ids)
        parts += [(f"{name}: ", "bold"), titles or "none", "\n"]
    stayed = len(reply.after) - len(reply.entered_item_ids)
    return Text.assemble(*parts, f"{stayed} stayed and moved {reply.moved:.1f} ranks on average")


def title_of(item: common_pb2.ScoredItem) -> str:
    """Title, else id."""
    return escape(item.title or item.item_id)


def kind(value: interpreter_pb2.ConceptKind.ValueType) -> str:
    """`semantic`, `item set` ..."""
    return _plain(interpreter_pb2.ConceptKind.Name(value), "CONCEPT_KIND_")


def status(value: interpreter_pb2.ConceptStatus.ValueType) -> str:
    """`verified`, `too rare` ..."""
    return _plain(interpreter_pb2.ConceptStatus.Name(value), "CONCEPT_STATUS_")


def _plain(name: str, prefix: str) -> str:
    text = name.removeprefix(prefix).lower().replace("_", " ")
    return "" if text == "unspecified" else text


def _concept_row(concept: interpreter_pb2.Concept) -> tuple[str, ...]:
    return (
        concept.id,
        escape(concept.label),
        kind(concept.kind),
        status(concept.status),
        f"{concept.confidence:.2f}",
        f"{concept.control_confidence:.2f}",
        share(concept.density),
        escape(concept.output_label),
    )


def _items(title: str, items: Sequence[common_pb2.ScoredItem]) -> Text:
    return Text.assemble((f"{title}: ", "bold"), " · ".join(item.title or item.item_id for item in items) or "nothing")


def _neighbours(title: str, measure: str, found: Sequence[interpreter_pb2.Neighbour]) -> RenderableType:
    rows = [(n.concept_id, escape(n.label), f"{n.correlation:+.2f}") for n in found]
    return table(title, ["concept", "label", f">{measure}"], rows)


def _move(before: int | None, after: int) -> str:
    if before is None:
        return "[green]new[/]"
    if before == after:
        return "="
    return f"[green]▲{before - after}[/]" if before > after else f"[red]▼{after - before}[/]"
