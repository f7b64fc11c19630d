"""What serving and steering cost: `python -m benchmarks.serving`.

A bare gRPC echo server beside the recommender's `Recommend`: without the steering code, without an interpreter, with
no live policy, steered in process and by RPC, and among 1,000 policies; SASRec of d = 64 at 3,700, 50,000 and
1,000,000 items. Processor time per call of the server's process is compared within rounds that run all variants
forwards and back; servers have one core, load the other. `--quick` looks at 3,700 items alone, for two minutes.
`--beside` measures the recommender of another checkout too, at 3,700 items. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.matching import match_us
from benchmarks.serving.closed_loop import GrpcLoad, Load
from benchmarks.serving.crew import Crew, ask
from benchmarks.serving.h2load import find_h2load
from benchmarks.serving.processes import cores
from benchmarks.serving.report import heading, last_line, tables
from benchmarks.serving.spending import spend
from benchmarks.serving.stages import Effort, run
from benchmarks.serving.variants import ADD, ALONE, BARE, NO_LIVE, RPC, SCALE, THOUSAND, VARIANTS, WIDE, has_rpc
from benchmarks.serving.world import world

_CACHE = Path(".cache").resolve()
_LARGE = (BARE, NO_LIVE, ADD, SCALE)
_FULL = (
    Effort(3_700, tuple(VARIANTS), 20, {1: 160, 8: 320, 32: 320}, (8, 16, 32), 4.0, pairs=40),
    Effort(50_000, (*_LARGE, RPC), 20, {8: 160, 32: 192}, (8, 32), 4.0, pairs=20),
    Effort(1_000_000, _LARGE, 20, {8: 32}, (8,), 8.0, pairs=0, users_compared=16),
)
_QUICK = (Effort(3_700, (BARE, ALONE, NO_LIVE, ADD, SCALE, WIDE, THOUSAND, RPC), 5, {32: 256}, (32,), 1.0, pairs=10),)


def main() -> None:
    """Prints tables, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--quick", action="store_true", help="3,700 items and five rounds only")
    parser.add_argument(
        "--items", type=int, nargs="+", choices=(3_700, 50_000, 1_000_000), help="these catalogue sizes only"
    )
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="compare with the recommender of this checkout")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32], help="for --beside")
    parser.add_argument("--rounds", type=int, default=20, help="of all variants; pairs alone get twice as many")
    given = parser.parse_args()
    load: Load = find_h2load(_CACHE / "tools") or GrpcLoad()
    if (core := cores()[1]) is not None:
        os.sched_setaffinity(0, {core})
    _say(heading())
    if isinstance(load, GrpcLoad):
        _say(["no h2load (Debian: nghttp2-client): a Python client, slower than the echo server, makes the load"])
    if given.beside:
        _beside(given.beside.resolve(), load, given.in_flight, given.rounds)
        return
    sizes = []
    for effort in _QUICK if given.quick else _FULL:
        if given.items and effort.items not in given.items:
            continue
        names = tuple(name for name in effort.variants if name != RPC or has_rpc())
        if names != effort.variants:
            _say(["\nsteered by RPC is left out: this recommender has no setting `steering`"])
        if not given.quick:
            effort = replace(effort, rounds=given.rounds, pairs=min(effort.pairs, 2 * given.rounds))
        effort = replace(effort, variants=names)
        sizes.append(run(world(effort.items, _CACHE / "bench-serving"), effort, load))
        _say(tables(sizes[-1]))
    match = match_us()
    line = f"\nmatching among 1,000 policies of which 5 match (benchmarks/matching.py): {match:.1f} us a request"
    _say([line, last_line(sizes, match)])


def _beside(checkout: Path, load: Load, concurrency: Sequence[int], rounds: int) -> None:
    """Two checkouts' recommenders without an interpreter, echo and onnxruntime: what a change to the code is worth."""
    with Crew(world(3_700, _CACHE / "bench-serving")) as crew:
        here = crew.recommender("here")
        crew.recommender("there", checkout=checkout)
        crew.direct()
        crew.wait()
        crew.echo(16, ask(here, crew.request(0)).SerializeToString())
        crew.wait()
        for in_flight in concurrency:
            spent = spend(crew, load, in_flight=in_flight, rounds=rounds, calls=320, direct_batches=(32,))
            _say([f"{in_flight} in flight: CPU us a call, mean batch, ratio to there [95 %]"])
            for name in spent.us:
                us, batch = spent.median(name).median, spent.batch.get(name, 0)
                _say([f"  {name:8} {us:8.1f} {batch:5.1f}  {spent.ratio(name, 'there')}"])
            _say(f"  {name} over (echo + ort): {spent.ratio(name, 'echo', 'ort_32')}" for name in ("here", "there"))


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
