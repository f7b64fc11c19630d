"""Installs and starts the worked example in Node: its packages are kept in .cache between runs, by their lock."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "node"
OLDEST_NODE = 20
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT")
_INSTALL_S = 300


def installed() -> Path:
    """A folder with the example and its packages; skips the test where there is no Node, or an old one."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program!r}, which is not on PATH; to get it: install Node {OLDEST_NODE}")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"needs Node {OLDEST_NODE} or newer, found {version}")
    lock = (EXAMPLE / "package-lock.json").read_bytes()
    folder = ROOT / ".cache" / "node" / hashlib.sha256(lock + version.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for source in EXAMPLE.iterdir():
        if source.is_file():
            shutil.copy(source, folder)
    if not (folder / "complete").exists():
        done = subprocess.run(
            ["npm", "ci", "--no-update-notifier"], cwd=folder, capture_output=True, text=True, timeout=_INSTALL_S
        )
        if any(code in done.stderr for code in UNREACHABLE) and os.environ.get("RECSAE_REQUIRE_BINARIES") != "1":
            pytest.skip("npm cannot reach its registry; get on the network and run the test again")
        assert done.returncode == 0, f"npm ci failed\n{done.stdout}\n{done.stderr}"
        (folder / "complete").touch()
    return folder


@contextmanager
def serving_node(*arguments: str) -> Iterator[str]:
    """The example's server on a free port while the block runs; gives its address, and expects a clean end."""
    process = subprocess.Popen(
        ["node", "server.js", "--port", "0", *arguments],
        cwd=installed(),
        env={"PATH": os.environ["PATH"], "RECSAE_PROTOS": str(ROOT / "protos")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert " on 127.0.0.1:" in line, process.communicate(timeout=10)[1]
            yield line.split()[-1]
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
