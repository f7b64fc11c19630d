"""Closed-loop load by `h2load` of nghttp2: as many gRPC calls in flight as asked for, at little cost of its own.

Found on PATH, else unpacked from Debian's packages without being installed. Not here: open-loop load (`open_loop`).
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

METHOD = "/recsae.v1.Recommender/Recommend"
_PACKAGES = ("nghttp2-client", "libjemalloc2", "libev4")
_LIMIT_S = 300


@dataclass(frozen=True)
class H2load:
    """The program and what it needs to run."""

    program: str
    libraries: str = ""

    def run(
        self, port: int, request: bytes, *, calls: int, in_flight: int, core: int | None, connections: int = 1
    ) -> float:
        """Seconds that `calls` took, `in_flight` at once; RuntimeError when some got no answer."""
        with tempfile.NamedTemporaryFile() as body:
            body.write(struct.pack(">BI", 0, len(request)) + request)  # not compressed, length: gRPC's framing
            body.flush()
            each = max(1, in_flight // connections)
            command = [self.program, "-n", str(calls), "-c", str(connections), "-m", str(each), "-d", body.name]
            headers = ("content-type: application/grpc", "te: trailers", f"grpc-timeout: {_LIMIT_S}S")
            command += [word for header in headers for word in ("-H", header)]
            command.append(f"http://127.0.0.1:{port}{METHOD}")
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                check=True,
                env=os.environ | ({"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}),
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )
        succeeded = re.search(r"(\d+) succeeded", done.stdout)
        finished = re.search(r"finished in ([\d.]+)(us|ms|s|m)", done.stdout)
        if not succeeded or int(succeeded[1]) != calls or not finished:
            raise RuntimeError(f"not every call was answered: {done.stdout[-1500:]}")
        return float(finished[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[finished[2]]


def find_h2load(tools: Path) -> H2load | None:
    """The program, from PATH or the folder `tools`, where it is unpacked when Debian's packages can be had."""
    if on_path := shutil.which("h2load"):
        return H2load(on_path)
    program = tools / "usr" / "bin" / "h2load"
    if not program.exists() and not _unpack(tools):
        return None
    return H2load(str(program), ":".join(str(folder) for folder in sorted((tools / "usr" / "lib").glob("*-linux-gnu"))))


def _unpack(tools: Path) -> bool:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return False
    as_root = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as downloads:
        got = subprocess.run(
            ["apt-get", "-qq", *as_root, "download", *_PACKAGES], cwd=downloads, capture_output=True, check=False
        )
        tools.mkdir(parents=True, exist_ok=True)
        packages = sorted(Path(downloads).glob("*.deb"))
        unpacked = [subprocess.run(["dpkg", "-x", str(one), str(tools)], check=False).returncode for one in packages]
    return got.returncode == 0 and len(unpacked) == len(_PACKAGES) and not any(unpacked)
