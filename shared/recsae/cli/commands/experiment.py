"""`recsae experiment`: what a policy does to lists, between its arms and for the same users with and without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recsae.cli.context import CliContext, JsonFlag, ModelName, context_of
from recsae.cli.experiment_plot import write_experiment_plot
from recsae.cli.experiment_record import Experiment, as_record
from recsae.cli.experiment_users import Facets, TestUsers, facets_of, users_to_ask
from recsae.cli.experiment_views import experiment_view
from recsae.cli.output import console, print_json
from recsae.cli.replay import Question, Replayed, replay
from recsae.cli.subjects import Attributes, attribute_values
from recsae.cli.sweep_plot import check_plot_file
from recsae.datasets.schema import Dataset, load_dataset
from recsae.errors import FailedPreconditionError
from recsae.exposures.reader import ExposureReader
from recsae.exposures.record import OWN_KEY
from recsae.exposures.units import LogArms
from recsae.recommenders.ranked import Ranked
from recsae.steering.arms import Arm, Role, comparisons, doubts
from recsae.steering.experiment import Doubles, facet_shares, mean_interval, quality
from recsae.steering.wire import scope_from
from recsae.v1 import steering_pb2

_MOST_REPLAYED, _MOST_LOGGED = 1_000, 50_000


def experiment(
    ctx: typer.Context,
    policy_id: Annotated[str, typer.Argument(help="Policy id")],
    log: Annotated[
        Path | None, typer.Option(help="Compare what this exposure log says was shown, instead of replaying users")
    ] = None,
    users: Annotated[
        int, typer.Option(min=0, help="Most users; 0 = 1,000 to replay, 50,000 of a log", show_default=False)
    ] = 0,
    k: Annotated[int, typer.Option(min=1, max=100, help="Length of the lists compared")] = 10,
    facet: Annotated[
        list[str] | None, typer.Option("--facet", help="Facet to show whether it changed or not; repeatable")
    ] = None,
    data: Annotated[str, typer.Option(help="Data set; default: the model's own")] = "",
    model: ModelName = "",
    attribute: Attributes = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Calls at once")] = 8,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds each call may take")] = 5.0,
    seed: Annotated[int, typer.Option(help="Which users are drawn")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Most other facets to show")] = 10,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this .svg, .png or .pdf")] = None,
    json: JsonFlag = False,
) -> None:
    """Compare HR, NDCG and facet shares with and without a policy, with 95 % intervals.

    Users of the data set are asked again through the running recommender: those the policy reaches, once with it and
    once without any steering, beside those its rollout holds out. With --log: what was really shown to both.

    Examples: [bold]recsae experiment p-01h2[/] · [bold]recsae experiment p-01h2 --facet genre=Horror --users 5000[/] ·
    [bold]recsae experiment p-01h2 --log exposures/ --plot arms.svg[/]
    """
    context = context_of(ctx)
    if plot is not None:
        check_plot_file(plot)
    wanted = facet or []
    if log is not None:
        found = _logged(policy_id, log, _facets(context, model, data, wanted), users or _MOST_LOGGED)
    else:
        platform = context.platform
        asked_for = steering_pb2.GetPolicyRequest(policy_id=policy_id)
        policy = platform.call(platform.steering.GetPolicy, asked_for).policy
        _check_state(policy)
        dataset, facets = _facets(context, policy.model, data, wanted)
        test = users_to_ask(dataset, scope_from(policy.scope), policy.salt, users or _MOST_REPLAYED, seed)
        question = Question(policy.model, policy_id, k + 1, timeout, attribute_values(attribute))
        answers = _replayed(context, question, test, _index(dataset), concurrency, quiet=json)
        found = _of_replay(policy_id, policy.name, answers, test, facets, k)
    if plot is not None:
        write_experiment_plot(plot, found, wanted, limit)
    if json:
        print_json(as_record(found))
        return
    console.print(experiment_view(found, wanted, limit))


def _check_state(policy: steering_pb2.Policy) -> None:
    """FailedPreconditionError when replayed requests could not meet the policy."""
    if policy.state == steering_pb2.POLICY_STATE_LIVE:
        return
    state = steering_pb2.PolicyState.Name(policy.state).removeprefix("POLICY_STATE_").lower()
    raise FailedPreconditionError(
        f"policy {policy.id} is in state {state}, so no list has it to compare; make it live, or read what was logged "
        "with --log"
    )


def _facets(context: CliContext, model: str, data: str, wanted: list[str]) -> tuple[Dataset, Facets]:
    """The data set of the model, or the one named, and its facets."""
    workspace = context.workspace
    name = data or workspace.model(model).dataset
    dataset = load_dataset(Path(workspace.dataset(name).folder))
    return dataset, facets_of(dataset, wanted)


def _index(dataset: Dataset) -> dict[str, int]:
    return {item_id: at for at, item_id in enumerate(dataset.items.ids, 1)}


def _replayed(
    context: CliContext, question: Question, test: TestUsers, index: dict[str, int], concurrency: int, quiet: bool
) -> Replayed:
    with Progress(
        TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, disable=quiet, transient=True,
    ) as progress:  # fmt: skip
        bar = progress.add_task("", total=len(test.asked))
        return replay(
            context.platform.recommender.Recommend,
            question,
            test.asked,
            index,
            concurrency=concurrency,
            on_done=lambda users: progress.advance(bar, users),
        )


def _of_replay(policy_id: str, name: str, answers: Replayed, test: TestUsers, facets: Facets, k: int) -> Experiment:
    """The arms of a replay: HR and NDCG at `k` and facet shares of the first `k` places."""
    arms = {
        place: Arm(*(_values(lists[place], test.targets[rows], facets, k) for lists in (answers.steered, answers.bare)))
        for place, rows in sorted(answers.rows.items())
    }
    measures = (f"hr@{k}", f"ndcg@{k}", *facets.names)
    made = comparisons(arms)
    notes = doubts(arms, made, measures, answers.outside)
    notes += _of_others(answers.others)
    if not arms:
        notes.append("nobody asked is in an arm: look at the reasons, the policy's state, window and scope")
    return Experiment(policy_id, "replay", measures, 2, arms, made, dict(answers.outside), notes, name=name)


def _of_others(others: Mapping[Role, int]) -> Iterator[str]:
    """What to make of users whom other policies steered."""
    if also := others.get(Role.APPLIED):
        yield (
            f"{also} users it applied to were steered by other policies too: `paired` shows all of it, `adjusted` what "
            "this policy adds"
        )
    if alone := others.get(Role.HELD_OUT):
        yield f"{alone} users held out were steered by other policies: `arms` and `adjusted` compare it with those"


def _values(lists: list[Ranked], targets: NDArray[np.int64], facets: Facets, k: int) -> Doubles:
    """Quality and facet shares of each list, float64 [n, 2 + f]."""
    items = np.concatenate([one.items for one in lists])
    scores = np.concatenate([one.scores for one in lists])
    return np.concatenate([quality(items, scores, targets, k), facet_shares(items[:, :k], facets.matrix)], axis=1)


def _logged(policy_id: str, folder: Path, known: tuple[Dataset, Facets], most_users: int) -> Experiment:
    """The arms of an exposure log: facet shares of all that was shown to each user."""
    dataset, facets = known
    reader = ExposureReader(folder)
    units = LogArms(policy_id, _index(dataset), facets.matrix, most_users)
    own_keys = 0
    for exposure in reader:
        units.add(exposure)
        own_keys += exposure.user.startswith(OWN_KEY)
    if not units.exposures:
        raise FailedPreconditionError(f"no line of {folder} can be read ({dict(reader.skipped)}); name another folder")
    arms = dict(sorted(units.arms().items()))
    made = comparisons(arms)
    notes = doubts(arms, made, facets.names, units.outside)
    if own_keys:
        notes.append(
            f"{own_keys} exposures have pseudonyms of one process: who was shown lists by several counts several "
            "times; set RECSAE_RECOMMENDER_PSEUDONYM_KEY_FILE"
        )
    if units.unlinked:
        notes.append(f"{units.unlinked} exposures are of requests without a user: each counts for itself")
    if reader.skipped:
        lines = ", ".join(f"{count} {reason}" for reason, count in reader.skipped.items())
        notes.append(f"lines left out: {lines}")
    if not arms:
        notes.append(f"none of {units.exposures} exposures is in an arm of {policy_id}: look at the reasons")
    overlaps = {revision: mean_interval(values) for revision, values in sorted(units.overlaps().items())}
    return Experiment(policy_id, "log", facets.names, 0, arms, made, dict(units.outside), notes, overlaps)
