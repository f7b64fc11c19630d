"""`recsae concepts list | show | search | handles` and `recsae explain`: what a model learned, what fires for whom."""

from __future__ import annotations

from typing import Annotated

import typer

from recsae.cli.commands import concepts_compare, concepts_layers, concepts_out
from recsae.cli.context import JsonFlag, ModelName, context_of
from recsae.cli.effects_view import handles as handles_view
from recsae.cli.explain_views import explanation
from recsae.cli.output import console, print_json
from recsae.cli.subjects import Attributes, Candidates, attribute_values
from recsae.cli.views import concept_detail, concept_hits, concept_list
from recsae.v1 import common_pb2, interpreter_pb2

app = typer.Typer(help="Concepts: list, show, search, compare, layers, handles, report, export.", no_args_is_help=True)
concepts_compare.register(app)
concepts_layers.register(app)
concepts_out.register(app)

_ORDERS = {
    "confidence": interpreter_pb2.CONCEPT_ORDER_UNSPECIFIED,
    "density": interpreter_pb2.CONCEPT_ORDER_DENSITY,
    "latent": interpreter_pb2.CONCEPT_ORDER_LATENT,
}


def register(app: typer.Typer) -> None:
    """Adds `explain` to the root."""
    app.command()(explain)


@app.command(name="list")
def list_(
    ctx: typer.Context,
    model: ModelName = "",
    verified: Annotated[bool, typer.Option("--verified", help="Only verified concepts")] = False,
    order: Annotated[str, typer.Option(help="confidence, density or latent")] = "confidence",
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most concepts to list")] = 20,
    json: JsonFlag = False,
) -> None:
    """List concepts, the most trustworthy first.

    Example: [bold]recsae concepts list --verified --limit 50[/]
    """
    if order not in _ORDERS:
        raise typer.BadParameter(f"{order!r} is not one of {', '.join(_ORDERS)}", param_hint="--order")
    platform = context_of(ctx).platform
    status = interpreter_pb2.CONCEPT_STATUS_VERIFIED if verified else interpreter_pb2.CONCEPT_STATUS_UNSPECIFIED
    request = interpreter_pb2.ListConceptsRequest(model=model, status=status, order=_ORDERS[order], page_size=limit)
    reply = platform.call(platform.interpreter.ListConcepts, request)
    print_json(reply) if json else console.print(concept_list(reply))


@app.command()
def show(
    ctx: typer.Context,
    concept_id: Annotated[str, typer.Argument(help="Concept id, e.g. c-4f1a90be")],
    model: ModelName = "",
    json: JsonFlag = False,
) -> None:
    """Show one concept with its evidence, controls, neighbours and what it promotes.

    Example: [bold]recsae concepts show c-4f1a90be[/]
    """
    platform = context_of(ctx).platform
    request = interpreter_pb2.GetConceptRequest(model=model, concept_id=concept_id)
    reply = platform.call(platform.interpreter.GetConcept, request)
    print_json(reply) if json else console.print(concept_detail(reply.detail))


@app.command()
def search(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="Words; every one must be found, unless --meaning")],
    model: ModelName = "",
    meaning: Annotated[bool, typer.Option("--meaning", help="By meaning instead; needs the extra meaning")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most concepts to find")] = 20,
    json: JsonFlag = False,
) -> None:
    """Find concepts by words in labels, facets and item titles, or by meaning.

    Examples: [bold]recsae concepts search star wars[/] · [bold]recsae concepts search --meaning scary movies[/]
    """
    platform = context_of(ctx).platform
    mode = interpreter_pb2.SEARCH_MODE_MEANING if meaning else interpreter_pb2.SEARCH_MODE_WORDS
    request = interpreter_pb2.SearchConceptsRequest(model=model, query=" ".join(words), limit=limit, mode=mode)
    reply = platform.call(platform.interpreter.SearchConcepts, request)
    print_json(reply) if json else console.print(concept_hits(reply))


@app.command()
def handles(ctx: typer.Context, model: ModelName = "", json: JsonFlag = False) -> None:
    """List handles: facets that are turned by several concepts at once, with the doses that are safe.

    Example: [bold]recsae concepts handles[/]
    """
    platform = context_of(ctx).platform
    reply = platform.call(platform.interpreter.ListHandles, interpreter_pb2.ListHandlesRequest(model=model))
    print_json(reply) if json else console.print(handles_view(reply))


def explain(
    ctx: typer.Context,
    user: Annotated[str, typer.Argument(help="User id; leave out when --item is given")] = "",
    item: Annotated[
        list[str] | None, typer.Option("--item", help="History to explain, repeatable, oldest first")
    ] = None,
    model: ModelName = "",
    concepts: Annotated[int, typer.Option(min=0, max=256, help="Most concepts; 0 = all")] = 10,
    items: Annotated[int, typer.Option(min=0, max=100, help="Recommended items to attribute; 0 = 10")] = 10,
    candidate: Candidates = None,
    attribute: Attributes = None,
    json: JsonFlag = False,
) -> None:
    """Say which concepts fire for a user, and where the scores of the recommended items come from.

    Examples: [bold]recsae explain 42[/] · [bold]recsae explain --item 50 --item 181 --item 172[/] ·
    [bold]recsae explain 42 --model ctr --candidate 50 --attribute age=25[/] · [bold]recsae explain 42 -m
    sasrec@block_0[/]
    """
    if bool(user) == bool(item):
        raise typer.BadParameter("give either a user id or --item, e.g. `recsae explain 42`")
    platform = context_of(ctx).platform
    request = interpreter_pb2.ExplainRequest(
        model=model,
        concept_limit=concepts,
        item_limit=items,
        candidate_item_ids=candidate or [],
        attributes=attribute_values(attribute),
    )
    if item:
        request.history.CopyFrom(common_pb2.History(item_ids=item))
    else:
        request.user_id = user
    reply = platform.call(platform.interpreter.Explain, request)
    print_json(reply) if json else console.print(explanation(reply))
