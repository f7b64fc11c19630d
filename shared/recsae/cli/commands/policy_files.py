"""`recsae steer export | import`: all policies as one file, to move them, review them or keep them under version."""

from __future__ import annotations

import json as json_text
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from rich.markup import escape

from recsae.cli.commands.steering import Outside, Reason
from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json, table
from recsae.errors import FailedPreconditionError, InvalidRequestError
from recsae.store.files import write_json_atomic
from recsae.v1 import steering_pb2

SCHEMA_VERSION = 1
_FORMAT = "recsae-policies"
_MOST_POLICIES = 1_000
_MOST_BYTES = 4 << 20
_TIMEOUT_S = 120.0

OneModel = Annotated[str, typer.Option("--model", "-m", help="Only of this model; default: all", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds both to `recsae steer`."""
    app.command(name="export")(export)
    app.command(name="import")(import_)


def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="File to write, e.g. policies.json")],
    model: OneModel = "",
    ended: Annotated[bool, typer.Option(help="Reverted and expired ones too")] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file")] = False,
    json: JsonFlag = False,
) -> None:
    """Write all policies into one file, with ids, salts and states. It holds the user ids they name.

    Examples: [bold]recsae steer export policies.json[/] · [bold]recsae steer export live.json --no-ended[/]
    """
    if file.exists() and not force:
        raise InvalidRequestError(f"{file} exists; give another name, or --force to overwrite it")
    platform = context_of(ctx).platform
    request = steering_pb2.ListPoliciesRequest(model=model, include_ended=ended)
    reply = platform.call(platform.steering.ListPolicies, request, _TIMEOUT_S)
    policies = sorted(reply.policies, key=lambda policy: policy.id)
    content = {
        "format": _FORMAT,
        "schema_version": SCHEMA_VERSION,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "policies": [json_format.MessageToDict(policy, preserving_proto_field_name=True) for policy in policies],
    }
    write_json_atomic(file, content)
    done = {"file": str(file), "policies": len(policies)}
    print_json(done) if json else console.print(f"{file}: {len(policies)} policies.")


def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file `recsae steer export` wrote")],
    reason: Reason,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite policies of the same id that differ, by a new revision")
    ] = False,
    allow_outside_safe_range: Outside = False,
    json: JsonFlag = False,
) -> None:
    """Write the policies of a file; each is checked like a new one. Needs role admin. Doing it twice is harmless.

    Ends with exit code 1 when one was refused.

    Example: [bold]recsae steer import policies.json --reason "moved from staging" --replace[/]
    """
    platform = context_of(ctx).platform
    found: list[steering_pb2.ImportedPolicy] = []
    revision = 0
    for policies in batches(read_policies(file)):
        request = steering_pb2.ImportPoliciesRequest(
            policies=policies, reason=reason, replace=replace, allow_outside_safe_range=allow_outside_safe_range
        )
        reply = platform.call(platform.steering.ImportPolicies, request, _TIMEOUT_S)
        found += reply.policies
        revision = reply.plan_revision
    if json:
        print_json(steering_pb2.ImportPoliciesResponse(policies=found, plan_revision=revision))
    else:
        rows = [(one.policy_id, one.outcome, escape(one.reason)) for one in found if one.reason]
        if rows:
            console.print(table("Not taken", ["policy", "outcome", "why"], rows))
        counts = Counter(one.outcome for one in found)
        words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no policies"
        console.print(f"{words}. In force from plan revision {revision}.")
    refused = sum(one.outcome == "refused" for one in found)
    if refused:
        raise FailedPreconditionError(f"{refused} of {len(found)} policies were refused; the others are as told")


def read_policies(file: Path) -> list[steering_pb2.Policy]:
    """The policies of a file; InvalidRequestError says what is wrong with it."""
    try:
        content: Any = json_text.loads(file.read_bytes())
        found, version = content["format"], content["schema_version"]
        if (found, version) != (_FORMAT, SCHEMA_VERSION):
            raise InvalidRequestError(
                f"{file} is {found!r} of schema {version}, this release reads {_FORMAT!r} of schema {SCHEMA_VERSION}"
            )
        return [json_format.ParseDict(policy, steering_pb2.Policy()) for policy in content["policies"]]
    except OSError as error:
        raise InvalidRequestError(f"{file} cannot be read ({error.strerror}); name a file of policies") from error
    except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
        why = str(error).partition("\n")[0]
        raise InvalidRequestError(f"{file} is no file of policies ({why}); make one with `steer export`") from error


def batches(policies: Iterable[steering_pb2.Policy]) -> Iterator[list[steering_pb2.Policy]]:
    """Policies in calls of at most 1,000 and a few MiB."""
    batch: list[steering_pb2.Policy] = []
    size = 0
    for policy in policies:
        if batch and (len(batch) == _MOST_POLICIES or size + policy.ByteSize() > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(policy)
        size += policy.ByteSize()
    if batch:
        yield batch
