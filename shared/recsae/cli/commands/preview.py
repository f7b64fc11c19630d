"""`recsae preview`: what operations would do, for one user or for many, before any policy is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsae.cli.commands.steering import Handles, Operations, parse_handle, parse_operation
from recsae.cli.context import CliContext, JsonFlag, ModelName, context_of
from recsae.cli.output import console, print_json
from recsae.cli.panel_plot import write_panel_plot
from recsae.cli.panel_views import panel as panel_view
from recsae.cli.subjects import Attributes, Candidates, attribute_values
from recsae.cli.sweep_plot import check_plot_file
from recsae.cli.views import preview as preview_view
from recsae.steering.wire import segment_message
from recsae.v1 import common_pb2, steering_pb2

# Two thousand users take some ten seconds; a slow recommender may need longer.
_PANEL_S = 120.0
_EXAMPLE = "e.g. `recsae preview 42 --op c-4f1a90be:ablate` or `recsae preview --users 200 --op c-4f1a90be:ablate`"


def preview(
    ctx: typer.Context,
    user: Annotated[str, typer.Argument(help="User id; leave out with --item, and for many users")] = "",
    item: Annotated[list[str] | None, typer.Option("--item", help="History, repeatable, oldest first")] = None,
    op: Operations = None,
    handle: Handles = None,
    policy: Annotated[str, typer.Option(help="A stored policy instead of --op and --handle, for many users")] = "",
    users: Annotated[int, typer.Option(min=0, max=2000, help="Most users to try it for, 0 = 200")] = 0,
    segment: Annotated[str | None, typer.Option(help='Only users it matches, e.g. "country=DK and not age<18"')] = None,
    member: Annotated[list[str] | None, typer.Option("--user", help="Try it for these users; repeatable")] = None,
    facet: Annotated[str, typer.Option(help="Facet the change is meant for; default: its own")] = "",
    model: ModelName = "",
    k: Annotated[int, typer.Option(min=1, max=100, help="Length of the lists")] = 10,
    candidate: Candidates = None,
    attribute: Attributes = None,
    plot: Annotated[Path | None, typer.Option(help="Draw shares of facets into an .svg, .png or .pdf file")] = None,
    json: JsonFlag = False,
) -> None:
    """Show before and after for one user or for many; nothing is changed.

    Of many users it tells how lists, facets, coverage, popularity and NDCG change, with 95 % intervals over users.

    Examples: [bold]recsae preview 42 --op c-4f1a90be:add=1.5 --op c-77aa01ff:ablate[/] ·
    [bold]recsae preview --users 500 --handle genre=Horror=0.5 --plot horror.svg[/] ·
    [bold]recsae preview --segment "country=DK" --policy p-01h2[/]
    """
    one, many = bool(user) or bool(item), bool(users or segment is not None or member or policy or facet or plot)
    if one == many or (user and item):
        raise typer.BadParameter(f"give a user id, or --item, or --users, --user or --segment for many; {_EXAMPLE}")
    if member and segment is not None:
        raise typer.BadParameter("give --user or --segment, not both")
    operations = [parse_operation(text) for text in op or []]
    handles = [parse_handle(text) for text in handle or []]
    context = context_of(ctx)
    if one:
        request = steering_pb2.PreviewRequest(
            model=model,
            operations=operations,
            handles=handles,
            k=k,
            candidate_item_ids=candidate or [],
            attributes=attribute_values(attribute),
        )
        _one(context, request, user, item or [], as_json=json)
        return
    if candidate or attribute:
        raise typer.BadParameter("--candidate and --attribute belong to one user; leave them out for many")
    panel = steering_pb2.PreviewPanelRequest(
        model=model, operations=operations, handles=handles, policy_id=policy, most_users=users, k=k, facet=facet
    )
    if member:
        panel.users.user_ids.extend(member)
    if segment is not None:
        panel.segment.CopyFrom(_segment(segment))
    _many(context, panel, plot, as_json=json)


def _one(
    context: CliContext, request: steering_pb2.PreviewRequest, user: str, items: list[str], *, as_json: bool
) -> None:
    if items:
        request.history.CopyFrom(common_pb2.History(item_ids=items))
    else:
        request.user_id = user
    reply = context.platform.call(context.platform.steering.Preview, request)
    print_json(reply) if as_json else console.print(preview_view(reply))


def _many(context: CliContext, request: steering_pb2.PreviewPanelRequest, plot: Path | None, *, as_json: bool) -> None:
    if plot is not None:
        check_plot_file(plot)  # before the work, not after it
    reply = context.platform.call(context.platform.steering.PreviewPanel, request, _PANEL_S)
    print_json(reply) if as_json else console.print(panel_view(reply))
    if plot is not None:
        write_panel_plot(plot, reply)
        if not as_json:
            console.print(f"Drawn into {plot}.")


def _segment(text: str) -> common_pb2.Segment:
    from recsae.cli.segment_expression import parse_segment

    return segment_message(parse_segment(text))
