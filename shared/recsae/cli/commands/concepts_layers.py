"""`recsae concepts layers`: the hooks of one model beside each other."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated

import typer

from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json
from recsae.errors import FailedPreconditionError


def register(app: typer.Typer) -> None:
    """Adds the command to `recsae concepts`."""
    app.command(name="layers")(show_layers)


def show_layers(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Model; default: the first one")] = "",
    channel: Annotated[str, typer.Option(help="production or candidate; default: the first that points anywhere")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Most concepts to list of each kind")] = 10,
    json: JsonFlag = False,
) -> None:
    """Compare the hooks of a model: how good their SAEs are, which concepts correspond, which one layer alone has.

    Concepts correspond when they fire on the same histories (r >= .5), the probe rows a dictionary carries. NDCG is
    measured at the hook that ranks.

    Examples: [bold]recsae concepts layers[/] · [bold]recsae concepts layers sasrec --limit 30 --json[/]
    """
    from recsae.cli import layer_views
    from recsae.cli.layers import CHANNELS, published_layers, read_on_probe
    from recsae.concepts.layers import compare_layers

    if channel and channel not in CHANNELS:
        raise typer.BadParameter(f"{channel!r} is not one of {', '.join(CHANNELS)}", param_hint="--channel")
    context = context_of(ctx)
    hooks = published_layers(context, model, channel)
    if not hooks.layers:
        raise FailedPreconditionError(
            f"no hook of model {hooks.info.name} has an SAE in {channel or ' or '.join(CHANNELS)}; run `recsae refresh`"
        )
    compared = []
    if len(hooks.layers) > 1:
        read = read_on_probe(context, hooks)
        compared = [(a, b, compare_layers(read[a], read[b])) for a, b in combinations(range(len(read)), 2)]
    if json:
        print_json(layer_views.layers_record(hooks, compared))
        return
    console.print(layer_views.layers(hooks, compared, limit))
