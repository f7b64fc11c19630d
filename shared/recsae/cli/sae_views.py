"""How matchings and seed stability of SAEs look in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from recsae.cli.output import bar, share, table

if TYPE_CHECKING:
    from recsae.sae.matching import LatentMatching, MatchedSide
    from recsae.sae.stability import SeedStability, StableShare

_COLOURS = {"stable": "green", "drifted": "yellow", "split": "yellow", "merged": "yellow", "lost": "red", "new": "cyan"}
_QUIET = "dim"


def matching(found: LatentMatching, old: str, new: str, rows: int, by_chance: float, limit: int) -> RenderableType:
    """Counts per status on both sides, then the old latents that hold most and are not simply stable."""
    counts_old, counts_new = found.old.counts(), found.new.counts()
    masses_old, masses_new = found.old.masses(), found.new.masses()
    statuses = [
        (
            _status(status),
            *_counted(counts_old[status], masses_old[status], status != "new"),
            *_counted(counts_new[status], masses_new[status], status != "lost"),
        )
        for status in counts_old
    ]
    earlier, later = (escape(old), escape(new)) if _short(old) == _short(new) else (_short(old), _short(new))
    columns = ["status", ">old latents", ">of activation", "", ">new latents", ">of activation", ""]
    moved = np.flatnonzero(~np.isin(found.old.status, ["stable", "silent"]))
    shown = moved[np.argsort(-found.old.mass[moved], kind="stable")][:limit]
    listed = [_latent_row(found.old, latent) for latent in shown.tolist()]
    parts: list[RenderableType] = [
        table(f"{earlier} in {later}, on {rows:,} probe rows", columns, statuses),
        Text(f"Matched by chance, in an unrelated dictionary of the same shape: {share(by_chance)}", _QUIET),
    ]
    if found.alignment is not None:
        explained = f"Base models aligned by rotation; it explains {share(found.alignment.explained)} of the variance."
        parts.append(Text(explained, _QUIET))
    if listed:
        header = [">old latent", "status", ">new latent", ">cosine", ">firing r", ">of activation"]
        parts.append(table(f"{len(listed)} of {len(moved)} old latents that are not stable", header, listed))
    return Group(*parts)


def matching_record(found: LatentMatching, old: str, new: str, rows: int, by_chance: float) -> dict[str, Any]:
    """The same with every latent, for scripts."""
    return {
        "rows": rows,
        "false_match_rate": by_chance,
        "alignment_explained": None if found.alignment is None else found.alignment.explained,
        "old": {"sae": old, **_side_record(found.old)},
        "new": {"sae": new, **_side_record(found.new)},
    }


def stability(found: SeedStability, names: Sequence[str], rows: int, limit: int) -> RenderableType:
    """Shares by count and by mass beside chance, then the latents that hold most."""
    stable, chance = found.share(), found.chance()
    shares = [
        ("latents that fire on 10 probe rows or more", share(stable.count), bar(stable.count), share(chance.count)),
        ("of their activation", share(stable.mass), bar(stable.mass), share(chance.mass)),
    ]
    title = f"{_short(names[0])} found again in all of {len(names) - 1} other SAEs, on {rows:,} probe rows"
    judged = np.flatnonzero(found.judged)
    shown = judged[np.argsort(-found.mass[judged], kind="stable")][:limit]
    latents = [
        (
            str(latent),
            "[green]stable[/]" if found.stable[latent] else "[red]not found[/]",
            f"{int((found.partner[:, latent] >= 0).sum())} of {len(found.partner)}",
            f"{found.cosine[latent]:.2f}",
            f"{found.correlation[latent]:.2f}",
            share(found.mass[latent]),
        )
        for latent in shown.tolist()
    ]
    header = [">latent", "", ">seeds", ">least cosine", ">least firing r", ">of activation"]
    return Group(
        table(title, ["share of", ">stable", "", ">by chance"], shares),
        Text(f"One unrelated dictionary alone: {share(found.chance_per_seed())}", _QUIET),
        table(f"The {len(latents)} latents that hold most", header, latents),
    )


def stability_record(found: SeedStability, names: Sequence[str], rows: int) -> dict[str, Any]:
    """The same with every latent, for scripts."""
    latents = [
        {
            "latent": latent,
            "stable": bool(found.stable[latent]),
            "judged": bool(found.judged[latent]),
            "partners": found.partner[:, latent].tolist(),
            "cosine": float(found.cosine[latent]),
            "correlation": float(found.correlation[latent]),
            "mass": float(found.mass[latent]),
        }
        for latent in range(len(found.stable))
    ]
    return {
        "sae": names[0],
        "others": list(names[1:]),
        "rows": rows,
        "judged": int(found.judged.sum()),
        "stable": _share_record(found.share()),
        "chance": _share_record(found.chance()),
        "chance_per_seed": found.chance_per_seed(),
        "latents": latents,
    }


def _share_record(value: StableShare) -> dict[str, float]:
    return {"count": value.count, "mass": value.mass}


def _short(name: str) -> str:
    return escape(Path(name).resolve().name)


def _status(status: str) -> str:
    return f"[{_COLOURS.get(status, _QUIET)}]{status}[/]"


def _counted(count: int, mass: float, applies: bool) -> tuple[str, str, str]:
    return (f"{count:,}", share(mass), bar(mass)) if applies else ("", "", "")


def _latent_row(side: MatchedSide, latent: int) -> tuple[str, ...]:
    partner = int(side.partner[latent])
    near = (str(partner), f"{side.cosine[latent]:.2f}", f"{side.correlation[latent]:.2f}")
    shown = near if partner >= 0 else ("", "", "")
    return (str(latent), _status(str(side.status[latent])), *shown, share(side.mass[latent]))


def _side_record(side: MatchedSide) -> dict[str, Any]:
    latents = [
        {
            "latent": latent,
            "status": str(side.status[latent]),
            "partner": int(side.partner[latent]),
            "cosine": float(side.cosine[latent]),
            "correlation": float(side.correlation[latent]),
            "fingerprint": _known(side.fingerprint, latent),
            "mass": float(side.mass[latent]),
        }
        for latent in range(len(side.partner))
    ]
    return {"counts": side.counts(), "mass": side.masses(), "latents": latents}


def _known(values: NDArray[np.float64], latent: int) -> float | None:
    return None if np.isnan(values[latent]) else float(values[latent])
