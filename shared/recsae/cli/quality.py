"""How good an SAE and its dictionary are, as tables for the terminal: the scores of a run (docs/method.md, 5 and 6).

Not here: concepts themselves (`views`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.text import Text

from recsae.cli.output import bar, share, short, table, with_interval
from recsae.sae.sparsity import LOG10_EDGES, is_sparse

_AGREEMENTS = (("overlap@10", "overlap@10"), ("rbo@10", "RBO@10"), ("kendall@10", "Kendall's tau@10"))
_QUALITIES = tuple(f"{measure}@{k}" for measure in ("hr", "ndcg") for k in (5, 10, 20))

Scores = Mapping[str, float]


def sae_quality(scores: Scores) -> RenderableType:
    """Reconstruction, dead latents, firing densities, ranking quality kept and list agreement."""
    users, rows = scores.get("rank.users", 0.0), scores.get("rank.rows", 0.0)
    beside = [">SAE [95 %]", ">PCA-k", ">adaptive\nPCA-k"]
    note = sparsity_note(scores)
    return Group(
        *([Text(note, "yellow")] if note else []),
        table("SAE on users it was not trained on", ["score", ">value"], _reconstruction(scores)),
        table("How often latents fire", ["share of rows", ">latents", ""], _densities(scores)),
        table(
            f"Ranking with reconstructed vectors, {users:.0f} unseen users, {rows:.0f} targets",
            ["kept", ">original", *beside, ">SAE minus\nadaptive, 95 %"],
            [_kept(scores, name) for name in _QUALITIES],
        ),
        table(
            "Lists with reconstructed vectors against the original ones",
            ["agreement", *beside],
            [
                (words, _interval(scores, f"rank.{name}"), *_baselines(scores, f"rank.{name}"))
                for name, words in _AGREEMENTS
            ],
        ),
    )


def sparsity_note(scores: Scores) -> str:
    """A sentence where k is half of d or more, so that the scores show nothing about sparse codes; else nothing."""
    k, d = scores.get("sae.k"), scores.get("sae.d")
    if k is None or d is None or is_sparse(k, int(d)):
        return ""
    return f"Not sparse (k = {k:.0f} of d = {d:.0f}): with so many numbers principal components keep nearly all, too."


def dictionary_quality(scores: Scores) -> RenderableType:
    """How many concepts passed verification, beside the same describer on the untrained network."""
    rows = [
        (words, *(_count(scores, f"{prefix}concepts.{name}") for prefix in ("", "control.")))
        for words, name in (
            ("live latents", "live"),
            ("too rare to judge (fewer than 100 cases)", "too_rare"),
            ("verified, described by facets", "verified"),
            ("  of these on unseen items too (semantic)", "semantic"),
            ("verified, a list of at most 6 items", "item_set"),
            ("confidence of .5 or more", "confident"),
        )
    ]
    if "concepts.described_ndcg" in scores:
        rows.append(("NDCG@10 kept by what labels say alone", _number(scores["concepts.described_ndcg"], 3), ""))
    return table("The dictionary, judged on unseen users", ["concepts", ">trained", ">untrained control"], rows)


def _reconstruction(scores: Scores) -> list[tuple[str, str]]:
    get = scores.get
    return [
        ("FVU, every position", _number(get("sae.fvu"), 4)),
        ("FVU, last positions", _number(get("sae.fvu_last"), 4)),
        ("FVU, items (in training)", _number(get("sae.fvu_items"), 4)),
        ("explained variance", _number(get("sae.explained_variance"), 4)),
        ("cosine", _number(get("sae.cosine"), 4)),
        ("L0 (latents firing per vector)", _number(get("sae.l0"), 1)),
        ("dead over users", _share(get("sae.dead_users"))),
        ("dead over items", _share(get("sae.dead_items"))),
        ("dead over users and items", _share(get("sae.dead"))),
        ("fire on fewer than 1 in 10,000", _share(get("sae.rare"))),
    ]


def _densities(scores: Scores) -> list[tuple[str, str, str]]:
    """Bins that hold a latent, from the first to the last, and the dead."""
    edges = [f"{edge:.1f}" for edge in LOG10_EDGES]
    bins = [(f"10^{low} to 10^{high}", scores.get(f"sae.density_log10_{low}", 0.0)) for low, high in pairwise(edges)]
    held = [at for at, (_, value) in enumerate(bins) if value > 0]
    shown = bins[held[0] : held[-1] + 1] if held else []
    return [(words, share(value), bar(value)) for words, value in [("never", scores.get("sae.dead", 0.0)), *shown]]


def _kept(scores: Scores, name: str) -> tuple[str, ...]:
    key = f"rank.{name}_kept"
    original = short(scores.get(f"rank.{name}_original"), ".4f")
    low, high = (short(scores.get(f"{key}_minus_adaptive_pca_{end}"), "+.3f") for end in ("low", "high"))
    difference = f"[{low}, {high}]" if low else ""
    return (name.upper(), original, _interval(scores, key), *_baselines(scores, key), difference)


def _baselines(scores: Scores, key: str) -> tuple[str, str]:
    return short(scores.get(f"{key}_pca")), short(scores.get(f"{key}_adaptive_pca"))


def _interval(scores: Scores, key: str) -> str:
    return with_interval(scores.get(key), scores.get(f"{key}_low"), scores.get(f"{key}_high"))


def _count(scores: Scores, name: str) -> str:
    return f"{scores[name]:.0f}" if name in scores else ""


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "" if value is None else share(value)
