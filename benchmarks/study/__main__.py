"""`make paper`: runs the study and writes `docs/results.md`, its plots and `docs/results.json`.

    python -m benchmarks.study --data DATA [--only ml-1m] [--part dictionary ...] [--again]

DATA holds `ml-1m` and `amazon-beauty` as atomic files (benchmarks/convert.py); a data set that is not there is skipped
with a sentence. Base models come from the cache or are trained (on a CPU that takes a day; see benchmarks/base_models).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import this_machine
from benchmarks.study.page import write_page
from benchmarks.study.parts import SETTINGS, Study, parts_of, run_part
from benchmarks.study.results import results_of
from recsae.concepts.llm.options import LlmOptions
from recsae.store.files import write_json_atomic


def main() -> None:
    """Runs what is asked for; the documents are written when every part of a data set is there."""
    parser = argparse.ArgumentParser(description="The study of SASRec's concepts.")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--part", nargs="*", default=None, help="only these parts; nothing is written")
    parser.add_argument("--again", action="store_true", help="compute what is in the cache again")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--llm-url", default="", help="an OpenAI-compatible endpoint, ending in /v1")
    parser.add_argument("--llm-model", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    llm = LlmOptions(arguments.llm_url, arguments.llm_model) if arguments.llm_url else None
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.only:
        if arguments.data is None or not (arguments.data / name).is_dir():
            where = f"{arguments.data / name} is not there" if arguments.data else "DATA= is not given"
            _say(f"{name} is skipped: {where}; README.md says how to get the data")
            continue
        study = Study(name, arguments.data, arguments.cache, arguments.threads, llm)
        wanted = arguments.part or list(parts_of(name))
        found[name] = {
            part: run_part(study, part, _say, again=arguments.again) for part in wanted if part in parts_of(name)
        }
    if found and arguments.part is None:
        write_json_atomic(arguments.out / "results.json", results_of(found))
        write_page(found, arguments.out, this_machine())
        _say(f"written: {arguments.out / 'results.md'}, {arguments.out / 'results.json'}")


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
