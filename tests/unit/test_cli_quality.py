"""What people read of an SAE's scores."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from recsae.cli.quality import sae_quality, sparsity_note
from recsae.sae.fidelity import fidelity_of, ranking_sums
from recsae.sae.rankings import Rankings
from recsae.sae.sparsity import FiringSums


def _shown(scores: dict[str, float]) -> str:
    console = Console(width=80, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(sae_quality(scores))
    return captured.get()


def _scores() -> dict[str, float]:
    rng = np.random.default_rng(0)
    original, sae, pca = (
        Rankings(rng.integers(1, 15, 300), rng.permuted(np.tile(np.arange(12), (300, 1)), axis=1)) for _ in range(3)
    )
    sums = ranking_sums(original, {"sae": sae, "pca": pca, "adaptive_pca": pca})
    rank = {f"rank.{name}": value for name, value in fidelity_of(sums, components=8).scores().items()}
    histogram = FiringSums(1_000, np.array([0, 1, 100, 100])).histogram.shares()
    return rank | {f"sae.{name}": value for name, value in histogram.items()} | {"sae.dead": 0.25, "sae.fvu": 0.125}


def test_every_score_people_need_is_shown_with_its_interval() -> None:
    scores = _scores()
    text = _shown(scores)
    for name in ("hr@5", "ndcg@20"):
        low, high = (scores[f"rank.{name}_kept_minus_adaptive_pca_{end}"] for end in ("low", "high"))
        line = next(line for line in text.splitlines() if line.lstrip().startswith(name.upper()))
        assert f" [{low:+.3f}, {high:+.3f}]".replace("0.", ".") in line
        assert f" {scores[f'rank.{name}_kept_adaptive_pca']:.3f}".replace(" 0.", " .") in line
    line = next(line for line in text.splitlines() if "Kendall" in line)
    assert f"{scores['rank.kendall@10']:.3f} [".replace("-0.", "-.") in line
    assert next(line.strip().split("  ")[0] for line in text.splitlines() if "10^" in line) == "10^-3.0 to 10^-2.5"
    assert "Not sparse" not in text


def test_scores_at_half_the_coordinates_are_marked_not_sparse() -> None:
    text = _shown(_scores() | {"sae.k": 32.0, "sae.d": 64.0})
    assert text.startswith("Not sparse (k = 32 of d = 64)")
    assert sparsity_note({"sae.k": 31.0, "sae.d": 64.0}) == ""


def test_a_run_without_these_scores_shows_empty_cells() -> None:
    assert "FVU" in _shown({})
