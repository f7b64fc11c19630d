"""How an explanation looks in a terminal: what fires, for which interest or candidate, and where scores come from."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import bar, share, shortened, table
from recsae.cli.views import status, title_of
from recsae.v1 import interpreter_pb2

_LABEL = 44
_MOST_WHERE = 3


def explanation(reply: interpreter_pb2.ExplainResponse) -> RenderableType:
    """What fires, and where the scores come from; of several rows also for which of them."""
    parts: list[RenderableType] = [_firings(reply)]
    if reply.rows:
        parts.append(_rows(reply))
    if reply.rows_left_out:
        parts.append(
            Text(f"{reply.rows_left_out} of {len(reply.rows)} left out: not reconstructed well enough.", "dim")
        )
    parts.append(Text(f"Unexplained share of this activation: {share(reply.unexplained_share)}"))
    if not reply.explainable:
        return Group(*parts, Text(reply.refusal, "yellow"))
    if reply.no_items:
        return Group(*parts, Text(f"No items: {reply.no_items}.", "dim"))
    return Group(*parts, _attributions(reply))


def _firings(reply: interpreter_pb2.ExplainResponse) -> RenderableType:
    kind = _kind(reply)
    titles = _titles(reply)
    rows = [
        (
            f.concept_id,
            escape(f.label),
            f"{f.strength:.2f}",
            bar(f.strength / 2),
            *([_where(f, titles)] if kind else []),
            f"{f.confidence:.2f}",
            status(f.status),
        )
        for f in reply.firings
    ]
    columns = ["concept", "label", ">strength", "", *([kind] if kind else []), ">confidence", "status"]
    return table(f"{len(rows)} concepts fire", columns, rows)


def _kind(reply: interpreter_pb2.ExplainResponse) -> str:
    """What a row stands for; "" where the subject has one."""
    if not reply.rows:
        return ""
    return "candidates" if reply.rows[0].item_id else "interests"


def _where(firing: interpreter_pb2.Firing, titles: dict[str, str]) -> str:
    """For which interests or candidates it fires; of many candidates the first few and how many more."""
    if firing.interests:
        return ", ".join(str(interest + 1) for interest in firing.interests)
    named = [escape(shortened(titles.get(item, item), 18)) for item in firing.item_ids[:_MOST_WHERE]]
    more = len(firing.item_ids) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _rows(reply: interpreter_pb2.ExplainResponse) -> RenderableType:
    titles, kind = _titles(reply), _kind(reply)
    fired: dict[str | int, int] = {}
    for firing in reply.firings:
        for where in firing.item_ids or firing.interests:
            fired[where] = fired.get(where, 0) + 1
    rows = [
        (
            escape(titles.get(row.item_id, row.item_id)) if row.item_id else str(row.interest + 1),
            str(fired.get(row.item_id or row.interest, 0)),
            share(row.unexplained_share),
            "yes" if row.explainable else "[yellow]left out[/]",
        )
        for row in reply.rows
    ]
    return table(f"{len(rows)} {kind}", [kind[:-1], ">concepts", ">unexplained", "explainable"], rows)


def _titles(reply: interpreter_pb2.ExplainResponse) -> dict[str, str]:
    return {one.item.item_id: one.item.title for one in reply.items if one.item.title}


def _attributions(reply: interpreter_pb2.ExplainResponse) -> RenderableType:
    labels = {firing.concept_id: firing.label for firing in reply.firings}
    rows = [_attribution_row(rank, item, labels) for rank, item in enumerate(reply.items, start=1)]
    columns = [">#", "item", ">score", ">mean", ">base", "largest concepts", ">others", ">unexplained"]
    return table("Where the scores come from (the parts add up)", columns, rows)


def _attribution_row(rank: int, item: interpreter_pb2.ItemAttribution, labels: dict[str, str]) -> tuple[str, ...]:
    parts = [
        f"{part.score:+.2f} {escape(shortened(labels.get(part.concept_id, part.concept_id), _LABEL))}"
        for part in item.contributions[:3]
    ]
    return (
        str(rank),
        title_of(item.item),
        f"{item.item.score:.2f}",
        f"{item.catalogue_mean:.2f}",
        f"{item.base:+.2f}",
        "\n".join(parts),
        f"{item.other_concepts + sum(part.score for part in item.contributions[3:]):+.2f}",
        f"{item.unexplained:+.2f}",
    )
