"""How the hooks of a model look beside each other in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import share, short, shortened, table

if TYPE_CHECKING:
    from recsae.cli.layers import Hooks, PublishedLayer
    from recsae.concepts.layers import LayerComparison, LayerSide

_LABEL = 40
_NOT_MEASURED = "—"
_MEASURES = {
    "d": "numbers (d)",
    "width": "latents (width)",
    "k": "firing per vector (k)",
    "fvu": "FVU",
    "dead": "dead",
    "live": "live",
    "verified": "verified",
    "confident": "confidence of .5 or more",
    "ndcg10_kept": "NDCG@10 kept",
    "channel": "channel",
}
CONFIDENT = 0.5

# Two layers by their place, and what they have in common.
Compared = tuple[int, int, "LayerComparison"]


def layers(hooks: Hooks, compared: Sequence[Compared], limit: int) -> RenderableType:
    """One column per hook, then for each two of them what corresponds and what one has alone."""
    records = [_record(layer) for layer in hooks.layers]
    rows = [(words, *(_cell(record, name) for record in records)) for name, words in _MEASURES.items()]
    columns = ["", *(f">{escape(layer.hook)}" for layer in hooks.layers)]
    parts: list[RenderableType] = [table(f"Hooks of {hooks.info.name} {hooks.info.version}", columns, rows)]
    for address in hooks.bare:
        parts.append(Text(f"{address} has no SAE yet: recsae refresh --model {address}", "dim"))
    for first, second, found in compared:
        parts += _pair(hooks.layers[first], hooks.layers[second], found, limit)
    return Group(*parts)


def layers_record(hooks: Hooks, compared: Sequence[Compared]) -> dict[str, Any]:
    """The same for scripts, with every verified concept."""
    return {
        "model": hooks.info.name,
        "model_version": hooks.info.version,
        "layers": [_record(layer) for layer in hooks.layers],
        "without_sae": list(hooks.bare),
        "pairs": [
            {
                "rows": found.rows,
                "sides": [
                    _side_record(hooks.layers[first], hooks.layers[second], found.a),
                    _side_record(hooks.layers[second], hooks.layers[first], found.b),
                ],
            }
            for first, second, found in compared
        ],
    }


def _record(layer: PublishedLayer) -> dict[str, Any]:
    from recsae.concepts.records import ConceptKind, ConceptStatus

    concepts = layer.dictionary.concepts
    live = sum(one.status is not ConceptStatus.DEAD for one in concepts)
    confident = sum(one.confidence >= CONFIDENT and one.kind is not ConceptKind.ITEM_SET for one in concepts)
    return {
        "address": layer.address,
        "hook": layer.hook,
        "d": layer.sae.d,
        "width": layer.sae.width,
        "k": layer.sae.k,
        "fvu": layer.scores.get("sae.fvu"),
        "dead": layer.scores.get("sae.dead"),
        "live": live,
        "verified": int(layer.verified.sum()),
        "confident": confident,
        "ndcg10_kept": layer.scores.get("rank.ndcg@10_kept") if layer.steerable else None,
        "steerable": layer.steerable,
        "channel": layer.channel,
        "sae_version": layer.sae.version,
        "dictionary_version": layer.dictionary.version,
    }


def _cell(record: dict[str, Any], name: str) -> str:
    value = record[name]
    if value is None:
        return _NOT_MEASURED
    if name == "dead":
        return share(value)
    return short(value) if isinstance(value, float) else str(value)


def _pair(first: PublishedLayer, second: PublishedLayer, found: LayerComparison, limit: int) -> list[RenderableType]:
    lines = [_sentence(first, second, found.a), _sentence(second, first, found.b)]
    title = f"{first.hook} and {second.hook}, over {found.rows:,} probe rows"
    parts: list[RenderableType] = [Text(f"\n{title}", "bold"), *(Text(line) for line in lines)]
    shared = found.a.strongest_first(found.a.shared)
    if len(shared):
        rows = [
            (
                *_named(first, latent),
                f"{found.a.correlation[latent]:.2f}",
                *_named(second, int(found.a.partner[latent])),
            )
            for latent in shared[:limit].tolist()
        ]
        columns = [escape(first.hook), "label", ">firing r", escape(second.hook), "label"]
        parts.append(table(f"{len(rows)} of {len(shared)} verified concepts that correspond", columns, rows))
    for layer, side in ((first, found.a), (second, found.b)):
        alone = side.strongest_first(side.alone)
        if len(alone):
            listed = [(*_named(layer, latent), share(side.mass[latent])) for latent in alone[:limit].tolist()]
            head = f"{len(listed)} of {len(alone)} verified concepts that {layer.hook} alone has"
            parts.append(table(escape(head), ["concept", "label", ">of activation"], listed))
    return parts


def _sentence(mine: PublishedLayer, other: PublishedLayer, side: LayerSide) -> str:
    judged = int((side.verified & side.judged).sum())
    return (
        f"{int(side.shared.sum())} of {judged} verified concepts of {mine.hook} ({share(side.share)}) fire with one of "
        f"{other.hook} at r >= .5; by chance {share(side.by_chance)}"
    )


def _named(layer: PublishedLayer, latent: int) -> tuple[str, str]:
    concept = layer.dictionary.by_latent(latent)
    return concept.id, escape(shortened(concept.label, _LABEL))


def _side_record(mine: PublishedLayer, other: PublishedLayer, side: LayerSide) -> dict[str, Any]:
    return {
        "layer": mine.address,
        "other": other.address,
        "verified": int(side.verified.sum()),
        "judged": int((side.verified & side.judged).sum()),
        "share": side.share,
        "by_chance": side.by_chance,
        "shared": [
            {
                **_concept_record(mine, side, latent),
                "correlation": float(side.correlation[latent]),
                "counterpart": other.dictionary.by_latent(int(side.partner[latent])).id,
                "counterpart_label": other.dictionary.by_latent(int(side.partner[latent])).label,
            }
            for latent in side.strongest_first(side.shared).tolist()
        ],
        "alone": [_concept_record(mine, side, latent) for latent in side.strongest_first(side.alone).tolist()],
    }


def _concept_record(layer: PublishedLayer, side: LayerSide, latent: int) -> dict[str, Any]:
    concept = layer.dictionary.by_latent(latent)
    return {"concept": concept.id, "label": concept.label, "mass": float(side.mass[latent])}
