"""`recsae concepts report | export`: a published dictionary as a page for people, and as a file for other tools."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsae import __version__
from recsae.cli.context import JsonFlag, ModelName, context_of
from recsae.cli.dictionaries import (
    ChannelName,
    DictionaryVersion,
    Force,
    PublishedDictionary,
    check_file,
    published_dictionary,
)
from recsae.cli.output import console, print_json
from recsae.concepts.export_formats import Format
from recsae.concepts.report import FULL
from recsae.store.channels import PRODUCTION
from recsae.store.files import write_atomic

if TYPE_CHECKING:
    from recsae.concepts.report.material import Facts

_MINUTES = "%Y-%m-%d %H:%M UTC"


def register(app: typer.Typer) -> None:
    """Adds the commands to `recsae concepts`."""
    for command in (report, export):
        app.command()(command)


def report(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="File to write")] = Path("report.html"),
    model: ModelName = "",
    channel: ChannelName = PRODUCTION,
    version: DictionaryVersion = "",
    full: Annotated[
        int,
        typer.Option(min=0, max=500, help="Concepts told in full, by trust and by activation each; others in short"),
    ] = FULL,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Write one HTML page about all concepts: figures beside controls, plots, evidence. It loads nothing else.

    Examples: [bold]recsae concepts report[/] · [bold]recsae concepts report --version 3f9c1d2e4b5a6078 --out
    movies.html[/]
    """
    from recsae.concepts.report.page import render

    check_file(out, force=force)
    found = published_dictionary(context_of(ctx), model, channel, version)
    page = render(found.dictionary, _facts(found), full=full).encode()
    write_atomic(out, page)
    if json:
        print_json(_wrote(found, out))
        return
    console.print(f"Wrote {out} ({len(page) / 1e6:.1f} MB, {len(found.dictionary.listed())} concepts).", markup=False)


def export(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="File to write")],
    format: Annotated[Format, typer.Option(help="For which reader")] = Format.PARQUET,
    model: ModelName = "",
    channel: ChannelName = PRODUCTION,
    version: DictionaryVersion = "",
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Write the whole dictionary: Parquet with one row per concept, or one JSON document. Dead latents are in it.

    Examples: [bold]recsae concepts export --out concepts.parquet[/] · [bold]recsae concepts export --format json --out
    concepts.json[/]
    """
    from recsae.concepts.export import write_export

    check_file(out, force=force)
    found = published_dictionary(context_of(ctx), model, channel, version)
    write_export(found.dictionary, found.model, format, out)
    if json:
        print_json(_wrote(found, out) | {"format": format.value})
        return
    console.print(f"Wrote {found.dictionary.width} concepts to {out}.", markup=False)


def _facts(found: PublishedDictionary) -> Facts:
    from recsae.concepts.report.material import Facts

    published = datetime.fromisoformat(found.artifact.created_at)
    return Facts(
        model=found.model,
        hook=str(found.artifact.config.get("hook", "")),
        dataset_version=found.artifact.lineage.get("dataset", ""),
        channel=found.channel,
        published_at=published.strftime(_MINUTES),
        written_at=datetime.now(UTC).strftime(_MINUTES),
        release=f"RecSAE {__version__}",
    )


def _wrote(found: PublishedDictionary, out: Path) -> dict[str, str | int]:
    dictionary = found.dictionary
    return {
        "model": found.model,
        "model_version": dictionary.model_version,
        "sae_version": dictionary.sae_version,
        "dictionary_version": dictionary.version,
        "file": str(out.resolve()),
        "bytes": out.stat().st_size,
        "concepts": dictionary.width,
    }
