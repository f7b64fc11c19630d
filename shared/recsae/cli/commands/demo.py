"""`recsae demo`: the whole platform on real data, from download to a steered recommendation and back.

Everything it shows comes over gRPC from the services it started, as any other client would get it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.rule import Rule

from recsae.cli.commands.data import add_dataset, fetch_ml100k_into
from recsae.cli.commands.models import quality_table, training_progress
from recsae.cli.commands.platform import addresses_table, stop_on_signals
from recsae.cli.commands.runs import start_refresh
from recsae.cli.context import CliContext, Platform, context_of, default_home
from recsae.cli.explain_views import explanation
from recsae.cli.insisting import create_or_insist, visible_strength
from recsae.cli.output import console, share, table
from recsae.cli.policy_windows import parse_duration, window_of
from recsae.cli.quality import dictionary_quality, sae_quality
from recsae.cli.run_bars import fail_unless_succeeded, follow
from recsae.cli.supervisor import Ports, ServingOptions, Supervisor
from recsae.cli.training import TrainedModels, train_models
from recsae.cli.views import (
    before_after,
    evidence_lines,
    kind,
    receipt,
    status,
    title_of,
)
from recsae.cli.workspace import DatasetEntry
from recsae.errors import FailedPreconditionError, NotFoundError, UnavailableError
from recsae.v1 import common_pb2, interpreter_pb2, pipeline_pb2, recommender_pb2, steering_pb2

_LIVE_S = 15.0
_POLL_S = 0.05
_CONCEPTS_SHOWN = 10
_CONCEPTS_READ = 200
_USERS_TRIED = 50
_PLANTED_SIZES = (256, 8)  # width and k: a dozen known causes need no thousand latents


def demo(
    ctx: typer.Context,
    data: Annotated[str, typer.Option(help="ml-100k, or planted (small, made here, no download)")] = "ml-100k",
    ci: Annotated[bool, typer.Option("--ci", help="Stop and exit at the end instead of waiting for Ctrl-C.")] = False,
) -> None:
    """Fetch data, train, start everything, refresh through Celery, explain, steer, and undo it.

    Example: [bold]recsae demo --ci[/]
    """
    context = context_of(ctx)
    started = time.monotonic()
    dataset = _dataset(context, data)
    trained = _train(context, dataset)
    supervisor = Supervisor(context.workspace, Ports.choose(), ServingOptions(observe_sample=1.0))
    console.print(Rule("Services", align="left"))
    with stop_on_signals(supervisor), supervisor.running(_announce) as addresses:
        platform = context.platform
        run = _refresh(platform, trained, dataset)
        _show_quality(trained, run)
        concepts = _show_concepts(platform, trained.model.name, run)
        user_id, reply = _show_explanation(context, platform, trained.model.name)
        _steer_and_undo(platform, trained.model.name, user_id, reply, concepts)
        console.print(Rule("Done", align="left"))
        console.print(f"All of it took {time.monotonic() - started:.0f} s.\n")
        _show_how_to_go_on(context, user_id, concepts[0].concept.id)
        if not ci:
            console.print(addresses_table(addresses))
            console.print("The services keep running. Ctrl-C stops them.")
            supervisor.watch(_announce)


def _dataset(context: CliContext, name: str) -> DatasetEntry:
    known = {entry.name: entry for entry in context.workspace.datasets()}
    if name in known:
        return known[name]
    if name == "planted":
        from recsae.datasets.planted import make_planted

        return add_dataset(context.workspace, make_planted(seed=0, n_users=300, n_items=120, n_concepts=6).dataset)
    if name == "ml-100k":
        with console.status("Fetching MovieLens-100K ..."):
            return fetch_ml100k_into(context.workspace)
    raise FailedPreconditionError(f"no data set {name!r} in {context.workspace.home}; run `recsae data import` first")


def _train(context: CliContext, dataset: DatasetEntry) -> TrainedModels:
    console.print(Rule(f"Model on {dataset.name}", align="left"))
    with training_progress() as progress:
        task = progress.add_task("training", total=1.0)
        return train_models(
            context.workspace,
            dataset,
            progress=lambda done, text: progress.update(task, completed=done, description=text),
            reuse=True,
        )


def _refresh(platform: Platform, trained: TrainedModels, dataset: DatasetEntry) -> pipeline_pb2.Run:
    console.print(Rule("Refresh", align="left"))
    width, k = _PLANTED_SIZES if dataset.name == "planted" else (0, 0)
    config = pipeline_pb2.RefreshConfig(
        model=trained.model.name,
        dataset_version=dataset.version,
        width=width,
        k=k,
        promote=True,
        control_model=trained.control.name,
    )
    run = follow(platform, start_refresh(platform, config).id)
    fail_unless_succeeded(run)
    swapped = _until(
        "the interpreter swapped to the new SAE", lambda: _serves(platform, trained.model.name, run.triple)
    )
    console.print(f"Promoted; the interpreter swapped live {swapped:.1f} s later.")
    return run


def _show_quality(trained: TrainedModels, run: pipeline_pb2.Run) -> None:
    console.print(Rule("1 · Quality", align="left"))
    console.print(quality_table(trained))
    console.print(sae_quality(run.scores))


def _show_concepts(platform: Platform, model: str, run: pipeline_pb2.Run) -> list[interpreter_pb2.ConceptDetail]:
    console.print(Rule("2 · The ten best concepts", align="left"))
    console.print(dictionary_quality(run.scores))
    page = sorted(_list_concepts(platform, model).concepts, key=_headline_order)[:_CONCEPTS_SHOWN]
    details = [
        platform.call(
            platform.interpreter.GetConcept, interpreter_pb2.GetConceptRequest(model=model, concept_id=concept.id)
        ).detail
        for concept in page
    ]
    if not details:
        raise FailedPreconditionError("the dictionary holds no live concept; see `recsae runs` for the scores")
    for number, detail in enumerate(details, start=1):
        concept = detail.concept
        console.print(
            f"[bold]{number:>2} {concept.id}[/] [bold cyan]{escape(concept.label)}[/] "
            f"({status(concept.status)}, {kind(concept.kind)}) · "
            f"confidence {concept.confidence:.2f}, label swaps {concept.control_confidence:.2f} · "
            f"fires on {share(concept.density)}"
        )
        for line in evidence_lines(detail.evidence, limit=2):
            console.print("  ", line, no_wrap=True, overflow="ellipsis")
        console.print("     promotes: " + " · ".join(title_of(item) for item in detail.promoted[:4]), style="dim")
    return details


def _headline_order(concept: interpreter_pb2.Concept) -> tuple[bool, float]:
    """By what the label adds to its control; lists of items memorise, so they never make the headline."""
    is_item_set = concept.kind == interpreter_pb2.CONCEPT_KIND_ITEM_SET
    return is_item_set, concept.control_confidence - concept.confidence


def _show_explanation(
    context: CliContext, platform: Platform, model: str
) -> tuple[str, interpreter_pb2.ExplainResponse]:
    user_id, reply = _user_with_concepts(context, platform, model)
    console.print(Rule(f"3 · Which concepts fire for user {user_id}?", align="left"))
    console.print(explanation(reply))
    return user_id, reply


def _steer_and_undo(
    platform: Platform,
    model: str,
    user_id: str,
    reply: interpreter_pb2.ExplainResponse,
    concepts: Sequence[interpreter_pb2.ConceptDetail],
) -> None:
    off = max(reply.firings, key=lambda found: found.confidence)
    firing = {found.concept_id for found in reply.firings}
    raised = next((detail for detail in concepts if detail.concept.id not in firing), concepts[-1])
    up, strength = raised.concept, visible_strength(raised)
    console.print(Rule(f"4 · More “{up.label}”, no “{off.label}”", align="left"))
    before = _recommend(platform, model, user_id)
    policy = steering_pb2.Policy(
        name=f"Demo: more {up.label}"[:120],
        model=model,
        operations=[
            steering_pb2.Operation(concept_id=up.id, kind=steering_pb2.OPERATION_KIND_ADD, value=strength),
            steering_pb2.Operation(concept_id=off.concept_id, kind=steering_pb2.OPERATION_KIND_ABLATE),
        ],
        scope=steering_pb2.Scope(user_ids=[user_id]),
        window=window_of(parse_duration("1h")),
    )
    created = create_or_insist(platform, policy)
    live_after = _until("the policy was live", lambda: bool(_recommend(platform, model, user_id).receipt.applied))
    during = _recommend(platform, model, user_id)
    console.print(before_after(before.items, during.items, f"Top 10 of user {user_id}"))
    console.print(receipt(during.receipt), f"Live {1000 * live_after:.0f} ms after it was acknowledged.")
    deleted = platform.call(
        platform.steering.DeletePolicy,
        steering_pb2.DeletePolicyRequest(policy_id=created.policy.id, reason="end of the demonstration"),
    )
    _until(
        "the policy was gone",
        lambda: _recommend(platform, model, user_id).receipt.plan_revision >= deleted.plan_revision,
    )
    after = _recommend(platform, model, user_id)
    if _bits(before.items) != _bits(after.items):
        raise FailedPreconditionError("the list after deleting the policy differs from the list before it")
    console.print(receipt(after.receipt))
    console.print("[bold green]Policy deleted: items and scores equal the original list bit for bit.[/]")


def _show_how_to_go_on(context: CliContext, user_id: str, concept_id: str) -> None:
    home = "" if context.workspace.home == default_home().resolve() else f"--home {context.workspace.home} "
    rows = [
        ("start it again", f"recsae {home}up"),
        ("every concept", f"recsae {home}concepts list --verified"),
        ("one in full", f"recsae {home}concepts show {concept_id}"),
        ("by words", f"recsae {home}concepts search horror"),
        ("a user", f"recsae {home}explain {user_id}"),
        ("what if", f"recsae {home}preview {user_id} --op {concept_id}:add=1.5"),
        ("steer", f"recsae {home}steer create Test --op {concept_id}:add=0.05 --reason trying --lasts 1h"),
        ("who did what", f"recsae {home}steer audit"),
        ("refresh again", f"recsae {home}refresh"),
    ]
    console.print(table("How to go on, in another terminal while it runs", ["to see", "run"], rows))


def _user_with_concepts(
    context: CliContext, platform: Platform, model: str
) -> tuple[str, interpreter_pb2.ExplainResponse]:
    """The first explainable user for whom a verified concept fires, else the first explainable one."""
    first: tuple[str, interpreter_pb2.ExplainResponse] | None = None
    for user_id in _user_ids(context):
        request = interpreter_pb2.ExplainRequest(model=model, user_id=user_id, concept_limit=8, item_limit=5)
        reply = platform.call(platform.interpreter.Explain, request)
        if not reply.explainable or not reply.firings:
            continue
        first = first or (user_id, reply)
        if any(found.status == interpreter_pb2.CONCEPT_STATUS_VERIFIED for found in reply.firings):
            return user_id, reply
    if first is None:
        raise FailedPreconditionError(f"none of the first {_USERS_TRIED} users can be explained; see the FVU above")
    return first


def _user_ids(context: CliContext) -> Sequence[str]:
    from recsae.datasets.schema import load_dataset

    entry = context.workspace.dataset(context.workspace.model("").dataset)
    return load_dataset(entry.folder).users.ids[:_USERS_TRIED]


def _list_concepts(platform: Platform, model: str) -> interpreter_pb2.ListConceptsResponse:
    request = interpreter_pb2.ListConceptsRequest(model=model, page_size=_CONCEPTS_READ)
    return platform.call(platform.interpreter.ListConcepts, request)


def _serves(platform: Platform, model: str, triple: common_pb2.Triple) -> bool:
    try:
        return _list_concepts(platform, model).triple == triple
    except NotFoundError:
        return False


def _recommend(platform: Platform, model: str, user_id: str) -> recommender_pb2.RecommendResponse:
    request = recommender_pb2.RecommendRequest(model=model, user_id=user_id, k=10)
    return platform.call(platform.recommender.Recommend, request)


def _bits(items: Sequence[common_pb2.ScoredItem]) -> list[tuple[str, bytes]]:
    return [(item.item_id, struct.pack("<f", item.score)) for item in items]


def _until(what: str, holds: Callable[[], bool]) -> float:
    """Asks again until it holds; returns the seconds it took. UnavailableError names what never came."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > _LIVE_S:
            raise UnavailableError(f"waited {_LIVE_S:.0f} s until {what}; see the logs of the interpreter")
        time.sleep(_POLL_S)  # only asking again shows what other clients see
    return time.monotonic() - started


def _announce(name: str, state: str) -> None:
    if state in ("ready", "restarting"):
        console.print(f"[bold]{name:>12}[/] {state}")
