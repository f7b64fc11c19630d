"""`recsae concepts label | edits | lineage`: people's own words, and what became of concepts at the last refresh."""

from __future__ import annotations

from typing import Annotated

import typer

from recsae.cli import identity_views
from recsae.cli.context import JsonFlag, ModelName, context_of
from recsae.cli.output import console, print_json
from recsae.v1 import interpreter_pb2


def register(app: typer.Typer) -> None:
    """Adds the commands to `recsae concepts`."""
    for command in (label, edits, lineage):
        app.command()(command)


def label(
    ctx: typer.Context,
    concept_id: Annotated[str, typer.Argument(help="Concept id, e.g. c-4f1a90be")],
    reason: Annotated[str, typer.Option(help="Why, for the audit trail")],
    words: Annotated[str, typer.Argument(help="Label to show instead; leave out to take back what was written")] = "",
    note: Annotated[str, typer.Option(help="Note to keep beside it")] = "",
    revision: Annotated[
        int | None, typer.Option(min=0, help="Only over this revision of the edit; 0 = only where there is none")
    ] = None,
    model: ModelName = "",
    json: JsonFlag = False,
) -> None:
    """Put your own words in the place of a label. They survive refreshes as long as the concept does.

    Examples: [bold]recsae concepts label c-4f1a90be "Slasher sequels" --reason "clearer"[/] · taken back:
    [bold]recsae concepts label c-4f1a90be --reason "the machine was right"[/]
    """
    request = interpreter_pb2.EditConceptRequest(
        model=model, concept_id=concept_id, label=words, note=note, reason=reason, expected_revision=revision
    )
    platform = context_of(ctx).platform
    reply = platform.call(platform.interpreter.EditConcept, request)
    print_json(reply) if json else console.print(identity_views.edit(reply.edit))


def edits(ctx: typer.Context, model: ModelName = "", json: JsonFlag = False) -> None:
    """List everything people wrote about concepts, also about those that are gone or in doubt.

    Example: [bold]recsae concepts edits[/]
    """
    platform = context_of(ctx).platform
    reply = platform.call(platform.interpreter.ListLabelEdits, interpreter_pb2.ListLabelEditsRequest(model=model))
    print_json(reply) if json else console.print(identity_views.edits(reply))


def lineage(
    ctx: typer.Context,
    concept_id: Annotated[str, typer.Argument(help="Concept of now or of before; leave out for all")] = "",
    model: ModelName = "",
    limit: Annotated[int, typer.Option(min=0, help="Most concepts to list, those with most activation first")] = 20,
    json: JsonFlag = False,
) -> None:
    """Say what became of the concepts of the dictionary before: stable, drifted, split, merged or lost; which are kept.

    Examples: [bold]recsae concepts lineage[/] · [bold]recsae concepts lineage c-4f1a90be[/]
    """
    platform = context_of(ctx).platform
    request = interpreter_pb2.GetLineageRequest(model=model, concept_id=concept_id)
    reply = platform.call(platform.interpreter.GetLineage, request)
    print_json(reply) if json else console.print(identity_views.lineage(reply, limit))
