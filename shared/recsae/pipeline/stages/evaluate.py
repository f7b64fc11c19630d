"""Stage evaluate: the SAE on users it was not trained on, and its publication as an artifact.

Reconstruction over held-out users and over items, and what the served model's rankings lose with reconstructed
activations, beside principal components. The SAE is published here: what follows names its version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from recsae.pipeline.advance import StepResult, read_facts
from recsae.pipeline.lanes import Lane, lane_of
from recsae.pipeline.sources import SourceModel
from recsae.pipeline.stages.material import Part, load_run_data, open_shards, read_plan
from recsae.pipeline.stages.ranking import MOST_RANKED_USERS, TargetRanker, target_rows
from recsae.pipeline.stages.train import sae_folder
from recsae.pipeline.steps import StepContext
from recsae.sae.baselines import PrincipalAxes
from recsae.sae.evaluation import Evaluation
from recsae.sae.evaluation import evaluate as evaluate_reconstruction
from recsae.sae.fidelity import fidelity
from recsae.sae.runtime import SparseAutoencoder
from recsae.sae.sparsity import is_sparse


def evaluate(context: StepContext) -> StepResult:
    """The whole stage."""
    lane = lane_of(context.step.stage, context.run.config)
    folder = context.workspace.fetch_folder(sae_folder(lane))
    sae = SparseAutoencoder.load(folder, "unpublished")
    model = read_plan(context.workspace, lane).model
    judged = judge(context, lane, sae, model, context.report)
    scores = judged.scores
    context.lease.check()
    version = context.platform.artifacts.publish(
        "sae",
        folder,
        config={
            "variant": sae.config.get("variant", "topk"),
            "d": sae.d,
            "width": sae.width,
            "k": sae.k,
            "hook": model.hook,
            "model": model.name,
            "training": read_facts(context.workspace, lane.stage("train"))["config"],
        },
        lineage={"model": model.version, "dataset": context.run.config.dataset_version},
        scores=scores,
    )
    facts = {"sae_version": version, "densities": judged.reconstruction.densities()}
    return StepResult(scores, facts, sentence(scores))


@dataclass(frozen=True)
class Judged:
    """An SAE on users and items held out; `scores` by name, those of ranking included."""

    reconstruction: Evaluation
    scores: dict[str, float]


def judge(
    context: StepContext, lane: Lane, sae: SparseAutoencoder, model: SourceModel, report: Callable[[str, float], None]
) -> Judged:
    """Scores of any SAE of the lane's activations, published or not; `report` hears a detail and the done share."""
    report("reconstructing held-out users and items", 0.1)
    held_out = open_shards(context.workspace, lane, Part.CONSTRUCTION, Part.VERIFICATION, Part.ITEMS)
    reconstruction = evaluate_reconstruction(sae, held_out)
    scores = {"sae.k": float(sae.k), "sae.d": float(sae.d)}
    scores |= {f"sae.{name}": value for name, value in reconstruction.scores().items()}
    report("ranking with reconstructed activations", 0.5)
    return Judged(reconstruction, scores | _ranking_scores(context, sae, model))


def _ranking_scores(context: StepContext, sae: SparseAutoencoder, model: SourceModel) -> dict[str, float]:
    """Quality kept and agreement of lists, by name; nothing when no held-out user has a target."""
    lane = lane_of(context.step.stage, context.run.config)
    data = load_run_data(context.platform, context.run)
    users = open_shards(context.workspace, lane, Part.CONSTRUCTION, Part.VERIFICATION)
    rows = target_rows(users, data, MOST_RANKED_USERS)
    if not len(rows.users):
        return {}
    axes = PrincipalAxes.fit(open_shards(context.workspace, lane, Part.SAE))
    ranker = TargetRanker(context.platform.source, model, data, rows, context.lease.check)
    kept = fidelity(sae, axes, rows.x, ranker, users=rows.users, seed=context.run.config.seed).scores()
    counts = {"rank.users": float(len(set(rows.users.tolist()))), "rank.rows": float(len(rows.users))}
    return counts | {f"rank.{name}": value for name, value in kept.items()}


def sentence(scores: Mapping[str, float]) -> str:
    """What a run shows of these scores in one line."""
    words = f"FVU {scores['sae.fvu']:.4f}, L0 {scores['sae.l0']:.1f}, dead {scores['sae.dead']:.1%}"
    if "rank.ndcg@10_kept" in scores:
        words += f", NDCG@10 kept {scores['rank.ndcg@10_kept']:.3f}"
        words += f" (adaptive PCA {scores['rank.ndcg@10_kept_adaptive_pca']:.3f})"
    k, d = scores["sae.k"], scores["sae.d"]
    return words if is_sparse(k, int(d)) else f"{words}; not sparse: k = {k:.0f} of d = {d:.0f}"
