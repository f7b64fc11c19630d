"""Run by a Python that has sae-lens: loads an SAE from a folder and encodes and decodes rows with it.

    python encode_with_saelens.py FOLDER IN.safetensors OUT.safetensors

reads `x` [n, d] and writes `latents` [n, w] and `x_hat` [n, d].
"""

from __future__ import annotations

import importlib
import sys

import safetensors.torch
import torch


def main() -> None:
    """The whole program."""
    folder, rows, out = sys.argv[1:]
    sae = importlib.import_module("sae_lens").SAE.load_from_disk(folder)
    with torch.no_grad():
        latents = sae.encode(safetensors.torch.load_file(rows)["x"])
        x_hat = sae.decode(latents)
    safetensors.torch.save_file({"latents": latents.contiguous(), "x_hat": x_hat.contiguous()}, out)
    print(type(sae).__name__)  # noqa: T201


if __name__ == "__main__":
    main()
