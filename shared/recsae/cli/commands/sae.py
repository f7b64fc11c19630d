"""`recsae sae`: sparse autoencoders of the workspace."""

from __future__ import annotations

import typer

from recsae.cli.commands import sae_compare

app = typer.Typer(help="SAEs: export, match, seed stability.", no_args_is_help=True)
sae_compare.register(app)
