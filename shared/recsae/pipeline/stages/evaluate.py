"""Stage evaluate: the SAE on users it was not trained on, and its publication as an artifact.

Reconstruction over held-out users and over items, and what the served model's rankings lose with reconstructed
activations, beside principal components. The SAE is published here: what follows names its version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recsae.pipeline.advance import StepResult, read_facts
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.sources import PAIR, CannotRankError, SourceModel
from recsae.pipeline.stages.material import hook_config, load_run_data, open_shards, read_plan
from recsae.pipeline.stages.pair_ranking import pair_fidelity, pair_rows, too_few_pairs
from recsae.pipeline.stages.rankable import Rankability, read_only
from recsae.pipeline.stages.ranking import MOST_RANKED_USERS, TargetRanker, target_rows
from recsae.pipeline.stages.run_data import Part, RunData
from recsae.pipeline.stages.train import sae_folder
from recsae.pipeline.steps import StepContext
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.evaluation import Evaluation
from recsae.sae.evaluation import evaluate as evaluate_reconstruction
from recsae.sae.fidelity import fidelity
from recsae.sae.pooling import single_vectors
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.sparsity import is_sparse


def evaluate(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    folder = context.workspace.fetch_folder(sae_folder(lane))
    sae = SparseAutoencoder.load(folder, "unpublished")
    model = read_plan(context.workspace, lane).model
    judged = judge(context, lane, sae, model, context.report)
    scores, found = judged.scores, judged.rankability
    context.lease.check()
    version = context.platform.artifacts.publish(
        "sae",
        folder,
        config={
            "variant": sae.config.get("variant", "topk"),
            "d": sae.d,
            "width": sae.width,
            "k": sae.k,
            **hook_config(model),
            "training": read_facts(context.workspace, lane.stage("train"))["config"],
        },
        lineage={"model": model.version, "dataset": context.run.config.dataset_version},
        scores=scores,
    )
    facts = {
        "sae_version": version,
        "densities": judged.reconstruction.densities(),
        "not_ranked": found.not_ranked,
        "passthrough": list(found.passthrough),
    }
    return StepResult(scores, facts, sentence(scores, found.not_ranked))


@dataclass(frozen=True)
class Judged:
    """An SAE on users and items held out; `scores` by name, those of ranking included where they can be measured."""

    reconstruction: Evaluation
    scores: dict[str, float]
    rankability: Rankability


def judge(
    context: StepContext, lane: Lane, sae: SparseAutoencoder, model: SourceModel, report: Callable[[str, float], None]
) -> Judged:
    """Scores of any SAE of the lane's activations, published or not; `report` hears a detail and the done share."""
    report("reconstructing held-out users and items", 0.1)
    data = load_run_data(context, lane)
    held_out = open_shards(context.workspace, lane, Part.CONSTRUCTION, Part.VERIFICATION, Part.ITEMS)
    reconstruction = evaluate_reconstruction(sae, held_out, first_item=data.first_item_subject)
    scores = {"sae.k": float(sae.k), "sae.d": float(sae.d)}
    scores |= {f"sae.{name}": value for name, value in reconstruction.scores().items()}
    report("ranking with reconstructed activations", 0.5)
    ranked = _ranked(context, lane, sae, model, data, reconstruction.positions.l0)
    return Judged(reconstruction, scores | ranked.scores, ranked.rankability)


@dataclass(frozen=True)
class _Ranked:
    """Quality kept and agreement of lists, by name; nothing when it cannot be measured or no user has a target."""

    rankability: Rankability
    scores: dict[str, float] = field(default_factory=dict)


def _ranked(
    context: StepContext, lane: Lane, sae: SparseAutoencoder, model: SourceModel, data: RunData, l0: float
) -> _Ranked:
    if reason := read_only(model):
        return _Ranked(Rankability(reason))
    try:
        if model.rows == PAIR:
            return _pairs_ranked(context, lane, sae, model, data, l0)
        return _subjects_ranked(context, lane, sae, model, data)
    except CannotRankError as error:
        return _Ranked(Rankability(str(error)))


def _subjects_ranked(
    context: StepContext, lane: Lane, sae: SparseAutoencoder, model: SourceModel, data: RunData
) -> _Ranked:
    users = open_shards(context.workspace, lane, Part.CONSTRUCTION, Part.VERIFICATION)
    rows = target_rows(users, data, MOST_RANKED_USERS)
    if not len(rows.users):
        return _Ranked(Rankability())
    axes = PrincipalAxes.fit(open_shards(context.workspace, lane, Part.SAE).flat())
    ranker = TargetRanker(context.platform.source, model, data, rows, context.lease.check)
    vectors = single_vectors(rows.x, model.dim, model.interests)
    kept = fidelity(sae, axes, vectors, ranker, users=rows.users, seed=context.run.config.seed).scores()
    counts = {"rank.users": float(len(set(rows.users.tolist()))), "rank.rows": float(len(rows.users))}
    return _Ranked(
        Rankability(passthrough=ranker.passthrough), counts | {f"rank.{name}": value for name, value in kept.items()}
    )


def _pairs_ranked(
    context: StepContext, lane: Lane, sae: SparseAutoencoder, model: SourceModel, data: RunData, l0: float
) -> _Ranked:
    rows = pair_rows(data, MOST_RANKED_USERS)
    if reason := too_few_pairs(rows):
        return _Ranked(Rankability(reason))
    if not len(rows.users):
        return _Ranked(Rankability())
    found = pair_fidelity(
        context.platform.source, model, data, rows, sae,
        PrincipalAxes.fit(open_shards(context.workspace, lane, Part.SAE)),
        fired_per_row=l0, seed=context.run.config.seed, check=context.lease.check,
    )  # fmt: skip
    counts = {"rank.users": float(len(set(rows.users.tolist()))), "rank.rows": float(len(rows.users))}
    return _Ranked(
        Rankability(passthrough=found.passthrough),
        counts | {f"rank.{name}": value for name, value in found.scores.items()},
    )


def sentence(scores: Mapping[str, float], not_ranked: str = "") -> str:
    """What a run shows of these scores in one line; `not_ranked`: why those of ranking are missing."""
    words = f"FVU {scores['sae.fvu']:.4f}, L0 {scores['sae.l0']:.1f}, dead {scores['sae.dead']:.1%}"
    if "rank.ndcg@10_kept" in scores:
        words += f", NDCG@10 kept {scores['rank.ndcg@10_kept']:.3f}"
        words += f" (adaptive PCA {scores['rank.ndcg@10_kept_adaptive_pca']:.3f})"
    if not_ranked:
        words += f", NDCG@10 kept not measured: {not_ranked}"
    k, d = scores["sae.k"], scores["sae.d"]
    return words if is_sparse(k, int(d)) else f"{words}; not sparse: k = {k:.0f} of d = {d:.0f}"
