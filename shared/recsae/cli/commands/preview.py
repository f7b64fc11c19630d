"""`recsae preview`: what operations would do, for one user, before any policy is made."""

from __future__ import annotations

from typing import Annotated

import typer

from recsae.cli.commands.steering import Handles, Operations, parse_handle, parse_operation
from recsae.cli.context import JsonFlag, ModelName, context_of
from recsae.cli.output import console, print_json
from recsae.cli.subjects import Attributes, Candidates, attribute_values
from recsae.cli.views import preview as preview_view
from recsae.v1 import common_pb2, steering_pb2


def preview(
    ctx: typer.Context,
    user: Annotated[str, typer.Argument(help="User id; leave out when --item is given")] = "",
    item: Annotated[list[str] | None, typer.Option("--item", help="History, repeatable, oldest first")] = None,
    op: Operations = None,
    handle: Handles = None,
    model: ModelName = "",
    k: Annotated[int, typer.Option(min=1, max=100, help="Length of the lists")] = 10,
    candidate: Candidates = None,
    attribute: Attributes = None,
    json: JsonFlag = False,
) -> None:
    """Show before and after for one user; nothing is changed.

    Example: [bold]recsae preview 42 --op c-4f1a90be:add=1.5 --op c-77aa01ff:ablate[/]
    """
    if bool(user) == bool(item):
        raise typer.BadParameter("give either a user id or --item, e.g. `recsae preview 42 --op c-4f1a90be:ablate`")
    platform = context_of(ctx).platform
    request = steering_pb2.PreviewRequest(
        model=model,
        operations=[parse_operation(text) for text in op or []],
        handles=[parse_handle(text) for text in handle or []],
        k=k,
        candidate_item_ids=candidate or [],
        attributes=attribute_values(attribute),
    )
    if item:
        request.history.CopyFrom(common_pb2.History(item_ids=item))
    else:
        request.user_id = user
    reply = platform.call(platform.steering.Preview, request)
    print_json(reply) if json else console.print(preview_view(reply))
