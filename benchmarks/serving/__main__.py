"""`python -m benchmarks.serving`: see the package. First form: processor time of echo and unsteered `Recommend`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.serving.crew import Crew, ask
from benchmarks.serving.h2load import find_h2load
from benchmarks.serving.spending import spend
from benchmarks.serving.world import world

_CACHE = Path(".cache")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=3_700)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=640)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--beside", type=Path, help="Another checkout whose recommender is measured too.")
    given = parser.parse_args()
    load = find_h2load(_CACHE / "tools")
    assert load is not None
    with Crew(world(given.items, _CACHE / "bench-serving")) as crew:
        here = crew.recommender("recommend")
        if given.beside:
            crew.recommender("beside", checkout=given.beside.resolve())
        answer = ask(here, crew.request(0)).SerializeToString()
        crew.echo(16, answer)
        crew.direct()
        for in_flight in given.in_flight:
            spent = spend(crew, load, in_flight=in_flight, rounds=given.rounds, calls=given.calls, direct_batches=(8, 32))
            sys.stdout.write(f"{in_flight} in flight: CPU us per call, mean batch, ratio to recommend\n")
            for name in spent.us:
                batch = f"{spent.batch[name]:5.1f}" if name in spent.batch else "    -"
                sys.stdout.write(f"  {name:12} {spent.median(name).median:8.1f} {batch}  {spent.ratio(name, 'recommend')}\n")
            bound = [e + o for e, o in zip(spent.us["echo"], spent.us["ort_32"], strict=True)]
            from benchmarks.serving.pairs import ratio_interval

            sys.stdout.write(f"  recommend / (echo + ort_32): {ratio_interval(spent.us['recommend'], bound)}\n")


if __name__ == "__main__":
    main()
