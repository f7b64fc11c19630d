"""`recsae sae export | match | stability`: an SAE in other formats, and beside SAEs of other runs and seeds."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from recsae.cli import sae_views, saes
from recsae.cli.context import JsonFlag, context_of
from recsae.cli.output import console, print_json
from recsae.errors import FailedPreconditionError, InvalidRequestError, NotFoundError

Activations = Annotated[
    Path, typer.Option(help="Activations to compare firings on: a folder of shards, or a run's work folder")
]
ProbeLimit = Annotated[int, typer.Option("--rows", min=100, help="Most rows of them, drawn evenly")]
Limit = Annotated[int, typer.Option(min=0, help="Most latents to list")]


class Format(StrEnum):
    """What an SAE is written as."""

    SAELENS = "saelens"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"


_FILES = {Format.SAFETENSORS: ("sae.safetensors", "sae.json"), Format.ONNX: ("encoder.onnx", "sae.json")}


def register(app: typer.Typer) -> None:
    """Adds the commands to `recsae sae`."""
    for command in (export, match, stability):
        app.command()(command)


def export(
    ctx: typer.Context,
    sae: Annotated[str, typer.Argument(help="Version in the workspace, or a folder that holds an SAE")],
    out: Annotated[Path, typer.Option(help="Folder to write to; must not exist yet")],
    format: Annotated[Format, typer.Option(help="For which reader")] = Format.SAELENS,
    json: JsonFlag = False,
) -> None:
    """Write an SAE for SAELens, as safetensors, or as an ONNX encoder. It reads and writes the model's units.

    Examples: [bold]recsae sae export 3f9c1d2e4b5a6078 --out lens/[/] · [bold]recsae sae export ./sae --format onnx
    --out onnx/[/]
    """
    source = saes.sae_folder(context_of(ctx).workspace, sae)
    if out.exists():
        raise FailedPreconditionError(f"{out} exists already; name a folder that does not")
    if format is Format.SAELENS:
        _write_saelens(source, out)
    else:
        _copy(source, out, _FILES[format])
    files = sorted(path.name for path in out.iterdir())
    if json:
        print_json({"sae": sae, "format": format.value, "folder": str(out.resolve()), "files": files})
        return
    console.print(f"Wrote {', '.join(files)} to {out}.", markup=False)


def match(
    ctx: typer.Context,
    old: Annotated[str, typer.Argument(help="SAE to find again: version or folder")],
    new: Annotated[str, typer.Argument(help="SAE to find it in: version or folder")],
    activations: Activations,
    old_activations: Annotated[
        Path | None, typer.Option(help="The same histories read by the old SAE's model, when the models differ")
    ] = None,
    rows: ProbeLimit = 50_000,
    limit: Limit = 20,
    json: JsonFlag = False,
) -> None:
    """Say what became of every latent of one SAE in another: stable, drifted, split, merged, lost or new.

    Example: [bold]recsae sae match 3f9c1d2e4b5a6078 90ab12cd34ef5678 --activations .recsae/artifacts/runs/r-2/[/]
    """
    from recsae.sae.alignment import align
    from recsae.sae.chance import false_match_rate
    from recsae.sae.matching import match_latents

    workspace = context_of(ctx).workspace
    probe = saes.probe_rows(activations, rows)
    before, alignment = probe, None
    if old_activations is not None:
        before = saes.probe_rows(old_activations, rows)
        saes.check_paired(probe, before)
        alignment = align(probe.x, before.x)
    latents_new = saes.latents_of(saes.load_sae(workspace, new), probe)
    latents_old = saes.latents_of(saes.load_sae(workspace, old), before)
    matching = match_latents(latents_new, latents_old, alignment)
    by_chance = false_match_rate(latents_new, latents_old, alignment)
    if json:
        print_json(sae_views.matching_record(matching, old, new, len(probe.x), by_chance))
        return
    console.print(sae_views.matching(matching, old, new, len(probe.x), by_chance, limit))


def stability(
    ctx: typer.Context,
    saes_: Annotated[list[str], typer.Argument(metavar="SAE OTHER...", help="The SAE to judge, then other seeds")],
    activations: Activations,
    rows: ProbeLimit = 50_000,
    limit: Limit = 20,
    json: JsonFlag = False,
) -> None:
    """Say which latents of an SAE are found again by SAEs trained from other seeds (two others are usual).

    Example: [bold]recsae sae stability seed0/ seed1/ seed2/ --activations .recsae/artifacts/runs/r-2/[/]
    """
    from recsae.sae.stability import seed_stability

    if len(set(saes_)) < max(2, len(saes_)):
        raise InvalidRequestError("name the SAE to judge and at least one other seed, each once")
    workspace = context_of(ctx).workspace
    probe = saes.probe_rows(activations, rows)
    latents = [saes.latents_of(saes.load_sae(workspace, name), probe) for name in saes_]
    found = seed_stability(latents[0], latents[1:])
    if json:
        print_json(sae_views.stability_record(found, saes_, len(probe.x)))
        return
    console.print(sae_views.stability(found, saes_, len(probe.x), limit))


def _copy(source: Path, out: Path, names: tuple[str, ...]) -> None:
    if missing := [name for name in names if not (source / name).is_file()]:
        raise NotFoundError(f"{source} has no {', '.join(missing)}; name a folder that training wrote, or a version")
    out.mkdir(parents=True)
    for name in names:
        shutil.copyfile(source / name, out / name)


def _write_saelens(source: Path, out: Path) -> None:
    from recsae.sae.saelens import write_saelens
    from recsae.sae.weights import load_weights

    facts = saes.sae_facts(source)
    variant = facts.get("config", {}).get("variant", "topk")
    threshold = facts.get("threshold") if variant == "batchtopk" else None
    if variant == "batchtopk" and threshold is None:
        raise FailedPreconditionError(
            f"{source / 'sae.json'} names no threshold, which an SAE of variant batchtopk needs; publish it again"
        )
    named = {name: str(facts["config"][name]) for name in ("hook", "model") if name in facts.get("config", {})}
    write_saelens(load_weights(source), out, k=int(facts["k"]), threshold=threshold, facts=named)
