"""The machine a number was measured on: processor, features that change speed, cache. Standard library only."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Instruction sets that decide which low-precision or wide paths exist, in the words of /proc/cpuinfo.
_FEATURES = (
    *("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve"),
)
_CPUINFO = Path("/proc/cpuinfo")
_L2 = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
_USUAL_L2_BYTES = 1 << 20


@dataclass(frozen=True)
class Machine:
    """`features` in a fixed order; `l2_bytes` of one core, 1 MiB where the system does not say."""

    processor: str
    cores: int
    features: tuple[str, ...]
    l2_bytes: int


@cache
def this_machine() -> Machine:
    """From Linux's own files; elsewhere what Python knows, and no features."""
    text = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)[:1]).split())
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    size = re.fullmatch(r"(\d+)K", _L2.read_text().strip()) if _L2.exists() else None
    return Machine(
        processor=model[1] if model else platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        features=tuple(feature for feature in _FEATURES if feature in flags),
        l2_bytes=int(size[1]) * 1024 if size else _USUAL_L2_BYTES,
    )
