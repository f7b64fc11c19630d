"""A sweep as one table: a row per point, below several seeds their mean and spread; the best of each k is marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from recsae.cli.output import share, short, table, with_interval
from recsae.cli.run_bars import short_count
from recsae.pipeline.sweeps import (
    NDCG_KEPT,
    Configuration,
    PointResult,
    Spread,
    SweepPoint,
    best_per_k,
    by_configuration,
)
from recsae.sae.sparsity import is_sparse
from recsae.v1 import pipeline_pb2

BEST = "★"
_NOT_SPARSE = "†"
_ADAPTIVE_PCA = f"{NDCG_KEPT}_adaptive_pca"
_COLUMNS = (">width", ">k", "variant", ">seed", ">L0", ">dead", ">FVU", "NDCG@10 kept", ">adaptive\nPCA", ">act/s")
_SEED = _COLUMNS.index(">seed")


def results_of(run: pipeline_pb2.Run) -> list[PointResult]:
    """The points of a sweep that are done."""
    return [
        PointResult(SweepPoint(one.width, one.k, one.variant, one.seed), dict(one.scores), one.failure)
        for one in run.points
    ]


def sweep_table(title: str, results: Iterable[PointResult]) -> Table:
    """One table of points; those of one configuration stand together, their mean last when there are several."""
    configurations = by_configuration(results)
    best = {id(one) for one in best_per_k(configurations).values()}
    rows = [row for one in configurations for row in _rows(one, id(one) in best)]
    seeds = {result.point.seed for one in configurations for result in one.results}
    shown = [at for at in range(len(_COLUMNS)) if at != _SEED or len(seeds) > 1]  # one seed says nothing in a column
    made = table(title, [_COLUMNS[at] for at in shown], [[row[at] for at in shown] for row in rows])
    made.box, made.padding = None, (0, 1, 0, 0)  # no dividers: fits 80 columns
    made.caption_justify = "left"
    made.caption = (
        f"{BEST} keeps most NDCG@10 of its k; what lies within the interval is noise.\n"
        "Adaptive PCA keeps as many numbers per vector."
    )
    if any(not _is_sparse(one.k, result.scores.get("sae.d")) for one in configurations for result in one.results):
        made.caption += f"\n{_NOT_SPARSE} not sparse (k of d / 2 or more): principal components keep nearly all, too."
    return made


def sweep_json(run: pipeline_pb2.Run) -> dict[str, object]:
    """The table for scripts: points with every recorded score, and mean and spread per configuration."""
    results = results_of(run)
    configurations = by_configuration(results)
    best = {id(one) for one in best_per_k(configurations).values()}
    return {
        "run": run.id,
        "state": pipeline_pb2.RunState.Name(run.state),
        "reason": run.reason,
        "model": run.config.model,
        "dataset_version": run.config.dataset_version,
        "points": [
            {
                **{"name": one.point.name, "width": one.point.width, "k": one.point.k, "variant": one.point.variant},
                **{"seed": one.point.seed, "scores": dict(one.scores), "failure": one.failure},
            }
            for one in results
        ],
        "configurations": [
            {
                **{"width": one.width, "k": one.k, "variant": one.variant, "best_of_k": id(one) in best},
                "scores": {
                    name: {"mean": spread.mean, "deviation": spread.deviation, "seeds": spread.n}
                    for name, spread in one.scores.items()
                },
            }
            for one in configurations
        ],
    }


def _rows(configuration: Configuration, best: bool) -> list[list[str]]:
    several = len(configuration.results) > 1
    rows = [_point_row(result, best and not several) for result in configuration.results]
    return [*rows, _mean_row(configuration, best)] if several and configuration.scores else rows


def _point_row(result: PointResult, best: bool) -> list[str]:
    point, scores = result.point, result.scores
    head = [_width(point.width, best), _k(point.k, scores.get("sae.d")), point.variant, str(point.seed)]
    if result.failure:
        return [*head, "", "", "", f"[red]{escape(result.failure)}[/]", "", ""]
    low, high = (scores.get(f"{NDCG_KEPT}_{side}") for side in ("low", "high"))
    cells = [
        *head,
        *_quality(scores),
        escape(with_interval(scores.get(NDCG_KEPT), low, high)),
        short(scores.get(_ADAPTIVE_PCA)),
        _speed(scores),
    ]
    return _bold(cells) if best else cells


def _mean_row(configuration: Configuration, best: bool) -> list[str]:
    spreads = configuration.scores
    means = {name: spread.mean for name, spread in spreads.items()}
    cells = [
        _width(configuration.width, best),
        _k(configuration.k, means.get("sae.d")),
        configuration.variant,
        "mean",
        *_quality(means),
        f"{short(means.get(NDCG_KEPT))} {_deviation(spreads.get(NDCG_KEPT))}",
        short(means.get(_ADAPTIVE_PCA)),
        _speed(means),
    ]
    return _bold(cells) if best else [f"[italic]{cell}[/]" for cell in cells]


def _width(width: int, best: bool) -> str:
    return f"{BEST} {width}" if best else str(width)


def _k(k: int, d: float | None) -> str:
    return f"{k}{'' if _is_sparse(k, d) else _NOT_SPARSE}"


def _is_sparse(k: int, d: float | None) -> bool:
    return d is None or is_sparse(k, int(d))


def _quality(scores: Mapping[str, float]) -> list[str]:
    dead = scores.get("sae.dead")
    l0 = short(scores.get("sae.l0"), ".1f")
    return [l0, "" if dead is None else share(dead), short(scores.get("sae.fvu"), ".4f")]


def _speed(scores: Mapping[str, float]) -> str:
    return short_count(scores["activations_per_s"]) if "activations_per_s" in scores else ""


def _deviation(spread: Spread | None) -> str:
    return "" if spread is None else f"± {short(spread.deviation)}, n = {spread.n}"


def _bold(cells: Sequence[str]) -> list[str]:
    return [f"[bold green]{cell}[/]" if cell else "" for cell in cells]
