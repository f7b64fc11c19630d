"""`recsae concepts compare`: which concepts tell two groups of users apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from recsae.cli.context import CliContext, JsonFlag, ModelName, context_of
from recsae.cli.group_views import group_differences
from recsae.cli.output import console, print_json
from recsae.cli.subjects import Candidates
from recsae.errors import FailedPreconditionError
from recsae.recommenders.address import split_address
from recsae.v1 import interpreter_pb2, recommender_pb2

_MOST_USERS = 2_000
_TIMEOUT_S = 120.0


def register(app: typer.Typer) -> None:
    """Adds the command to `recsae concepts`."""
    app.command()(compare)


def compare(
    ctx: typer.Context,
    a: Annotated[str, typer.Option("--a", help="One group: a facet, an attribute, or @FILE of user ids")],
    b: Annotated[str, typer.Option("--b", help="The other group")],
    model: ModelName = "",
    data: Annotated[str, typer.Option(help="Data set the users are of; default: the model's own")] = "",
    users: Annotated[int, typer.Option(min=2, max=_MOST_USERS, help="Most users of a group, drawn evenly")] = 1_000,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most concepts to list")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw")] = 0,
    candidate: Candidates = None,
    json: JsonFlag = False,
) -> None:
    """Find the concepts that tell two groups of users apart, with intervals over users and q values.

    A facet needs a share of the user's items: .3 unless the group says another, as in genre=Horror>=0.5. Users of both
    groups are left out. A model that scores pairs reads each user with every --candidate, or, without any, with the
    newest item.

    Examples: [bold]recsae concepts compare --a genre=Horror --b genre=Comedy[/] · [bold]recsae concepts compare --a
    gender=F --b gender=M[/] · [bold]recsae concepts compare --a @churned.txt --b @stayed.txt[/]
    """
    context = context_of(ctx)
    groups = _groups(context, (a, b), _Draw(model, data, users, seed, bool(candidate)))
    request = interpreter_pb2.CompareGroupsRequest(
        model=model, a=groups[0], b=groups[1], limit=limit, candidate_item_ids=candidate or []
    )
    reply = context.platform.call(context.platform.interpreter.CompareGroups, request, _TIMEOUT_S)
    print_json(reply) if json else console.print(group_differences(reply, a, b))


@dataclass(frozen=True)
class _Draw:
    """Which users are drawn, and of which model; `paired` = candidates are named."""

    model: str
    data: str
    most: int
    seed: int
    paired: bool


def _groups(context: CliContext, texts: tuple[str, str], draw: _Draw) -> list[interpreter_pb2.UserGroup]:
    from recsae.cli.user_groups import Rule, drawn, group_of_users, ids_of_file, members, parse_group
    from recsae.datasets.schema import load_dataset

    parsed = [parse_group(text) for text in texts]
    rules = [one for one in parsed if isinstance(one, Rule)]
    if not rules:
        return [interpreter_pb2.UserGroup(user_ids=ids_of_file(one)) for one in parsed if not isinstance(one, Rule)]
    dataset = load_dataset(context.workspace.dataset(draw.data or _dataset_of(context, draw.model)).folder)
    by_id = _reads_more_than_histories(context, draw)
    held = [members(dataset, one) if isinstance(one, Rule) else None for one in parsed]
    both = held[0] & held[1] if held[0] is not None and held[1] is not None else None
    groups = []
    for text, one, holds in zip(texts, parsed, held, strict=True):
        if holds is None:
            assert not isinstance(one, Rule)
            groups.append(interpreter_pb2.UserGroup(user_ids=ids_of_file(one)))
            continue
        chosen = drawn(holds if both is None else holds & ~both, draw.most, draw.seed)
        if len(chosen) < 2:
            raise FailedPreconditionError(
                f"{len(chosen)} users of {dataset.name} are in group {text!r} and not in the other; give a wider rule, "
                "e.g. a smaller share after >="
            )
        groups.append(group_of_users(dataset, chosen, by_id=by_id))
    return groups


def _reads_more_than_histories(context: CliContext, draw: _Draw) -> bool:
    """Whether users have to be named; pairs without candidates come from histories alone."""
    name = split_address(draw.model or context.workspace.model("").name).model
    request = recommender_pb2.GetModelRequest(model=name)
    info = context.platform.call(context.platform.exporter.GetModel, request).model
    if not draw.paired and any(hook.rows == recommender_pb2.ROW_KIND_PAIR for hook in info.hooks):
        return False
    return info.ignores_history or info.reads_user_id or bool(info.attributes)


def _dataset_of(context: CliContext, model: str) -> str:
    entry = context.workspace.model(model)
    if not entry.dataset:
        raise FailedPreconditionError(f"model {entry.name} came without a data set; name one, e.g. --data ml-100k")
    return entry.dataset
