"""`recsae backup | restore`: everything the state server alone knows, as one file."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import redis
import typer

from recsae.cli.context import CliContext, JsonFlag, context_of
from recsae.cli.output import console, print_json
from recsae.errors import InvalidRequestError, UnavailableError
from recsae.store.artifacts import ArtifactStore
from recsae.store.audit_archive import AuditArchive
from recsae.store.backup import back_up
from recsae.store.redis import connect
from recsae.store.restore import Restored, restore, state_revision
from recsae.store.state_file import read_manifest

_TIMEOUT_S = 120.0
StateUrl = Annotated[
    str,
    typer.Option(
        envvar="RECSAE_STATE_URL", help="redis:// URL of the state server; default: of the platform that runs here"
    ),
]
Artifacts = Annotated[str, typer.Option(help="Artifact store the state points at; default: of the workspace")]


def register(app: typer.Typer) -> None:
    """Adds both to the root."""
    app.command()(backup)
    app.command(name="restore")(restore_)


def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="File to write, e.g. state.jsonl.gz")],
    state_url: StateUrl = "",
    check_archives: Annotated[
        bool, typer.Option(help="Also read every archive of the audit trail and check that each follows the one before")
    ] = False,
    artifacts: Artifacts = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file")] = False,
    json: JsonFlag = False,
) -> None:
    """Write policies, their history, audit trail, channels, edits and run records into one file.

    Artifacts are named in it, not copied: copy the artifact store as well. The file holds user ids of policies.

    Examples: [bold]recsae backup state.jsonl.gz[/] · [bold]recsae backup state.jsonl.gz --state-url redis://db:6379/0[/]
    """
    if file.exists() and not force:
        raise InvalidRequestError(f"{file} exists; give another name, or --force to overwrite it")
    context = context_of(ctx)
    archived: int | None = None
    with _connected(context, state_url) as client:
        if check_archives:
            archived = AuditArchive(client, _store(context, artifacts)).verify()
        manifest = back_up(client, file)
    if json:
        print_json(asdict(manifest) | {"file": str(file), "archived_events_checked": archived})
        return
    console.print(
        f"{file}: {manifest.policies} policies, {manifest.events} audit events and {manifest.keys} keys as of revision "
        f"{manifest.revision}.\nSHA-256 {manifest.sha256}"
    )
    if archived is not None:
        console.print(f"{archived} archived audit events are as they were archived.")


def restore_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file `recsae backup` wrote")],
    state_url: StateUrl = "",
    artifacts: Artifacts = "",
    reason: Annotated[str, typer.Option(help="Why, for the audit trail")] = "restored from a backup",
    force: Annotated[
        bool, typer.Option("--force", help="Replace the state there is; it is backed up beside the file first")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Put a backup in place of what the state server holds; running interpreters take it up within a second.

    Examples: [bold]recsae restore state.jsonl.gz[/] · [bold]recsae restore state.jsonl.gz --force[/]
    """
    context = context_of(ctx)
    store = _store(context, artifacts)
    kept: Path | None = None
    with _connected(context, state_url) as client:
        if force:
            read_manifest(file)  # before a copy is kept of what will not be replaced
        replaced = state_revision(client) if force else None
        if replaced is not None:
            kept = file.with_name(f"{file.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S}")
            replaced = back_up(client, kept).revision
        done = restore(client, file, store, actor=f"cli:{getpass.getuser()}", reason=reason, replaced=replaced)
    if json:
        print_json(asdict(done) | {"replaced": str(kept) if kept else ""})
        return
    _say(done, kept)


def _say(done: Restored, kept: Path | None) -> None:
    manifest = done.manifest
    console.print(
        f"Restored {manifest.policies} policies and {manifest.events} audit events of {manifest.created_at}; they "
        f"count from plan revision {done.revision}."
    )
    if kept is not None:
        console.print(f"What was there before is in {kept}.")
    for kind, versions in done.missing.items():
        console.print(f"Not in the artifact store: {kind} {', '.join(versions)}; copy them there.", style="yellow")


def _store(context: CliContext, artifacts: str) -> ArtifactStore:
    return ArtifactStore(artifacts) if artifacts else context.workspace.artifacts()


def _connected(context: CliContext, state_url: str) -> redis.Redis:
    running = context.workspace.addresses()
    url = state_url or (running.state_url if running else "")
    if not url:
        raise UnavailableError(
            f"no platform runs in {context.workspace.home}; start one with `recsae up`, or name the server with "
            "--state-url"
        )
    # One script reads or replaces all of it: longer than a call of a service may take.
    return connect(url, timeout_s=_TIMEOUT_S)
