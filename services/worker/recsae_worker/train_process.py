"""`python -m recsae_worker.train_process JOB`: trains one SAE as a job file says, for the step that owns this process.

Speaks JSON lines on stdout: {"event": "progress", ...} and at the end "done" or "failed". It ends when its owner
does: stdin reaching its end is the sign, on every platform. Of several processes that train together the first one
speaks, saves and writes; it starts the others itself (`train_ranks`).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from recsae.sae.execution import Place
from recsae_worker.train_ranks import other_ranks

if TYPE_CHECKING:
    from recsae.sae.meter import Progress

_OWNER_GONE = 75

Event = Mapping[str, Any]


def main(arguments: list[str]) -> int:
    """Trains; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m recsae_worker.train_process JOB\n")
        return 2
    out = _claim_stdout()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_end_with_owner, name="owner", daemon=True).start()
    job = json.loads(Path(arguments[0]).read_bytes())
    if Place.from_environment().rank > 0:
        return 0 if _train(job, lambda: False, lambda event: None)["event"] == "done" else 1
    with _only_one(Path(job["out"])), other_ranks(Path(arguments[0]), job["processes"], Path(job["out"])):
        _say(out, _train(job, stop.is_set, lambda event: _say(out, event)))
    return 0


def _train(job: Mapping[str, Any], should_stop: Callable[[], bool], say: Callable[[Event], None]) -> Event:
    """Trains as the job says; returns the last event."""
    from recsae.errors import RecsaeError, UnavailableError
    from recsae.sae.checkpoint import load_checkpoint, training_identity
    from recsae.sae.config import SaeConfig
    from recsae.sae.execution import Execution
    from recsae.sae.ranks import join_ranks
    from recsae.sae.shards import ShardReader
    from recsae.sae.training import Checkpoints, TrainingStoppedError, train_sae
    from recsae.sae.weights import load_weights

    reports: list[Progress] = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        detail = f"step {progress.step:,} of {progress.steps:,}"
        event = {"event": "progress", "done": progress.share, "step": progress.step, "detail": detail}
        say({**event, **_measures(progress), "activations_per_s": progress.rows_per_s, "eta_s": progress.eta_s})

    out = Path(job["out"])
    try:
        rows = ShardReader.open_files([Path(path) for path in job["shards"]], verify=True).flat()
        config = SaeConfig.defaults_for(
            rows.d, rows.n, width=job["width"], k=job["k"], epochs=job["epochs"], seed=job["seed"],
            variant=job["variant"],
        )  # fmt: skip
        checkpoints = Checkpoints(out, job["checkpoint_every_s"])
        start = load_weights(Path(job["start"])) if job["start"] else None
        config = config if start is None else config.gentle()
        resumed = load_checkpoint(checkpoints.file, training_identity(config, rows, start))
        execution = Execution(**job["execution"]).shared_by(job["processes"])
        with join_ranks(execution.device) as ranks:
            facts = train_sae(
                rows,
                config,
                out / "sae",
                progress=report,
                should_stop=should_stop,
                checkpoints=checkpoints,
                start=start,
                execution=execution,
                ranks=ranks,
            )
    except TrainingStoppedError:
        return {"event": "failed", "message": "it was asked to stop; the checkpoint holds what was done"}
    except RecsaeError as error:
        return {"event": "failed", "message": str(error), "final": not isinstance(error, UnavailableError)}
    return {
        "event": "done",
        "scores": dict(facts.scores),
        "config": config.as_dict(),
        "resumed_from": resumed.step if resumed else 0,
        "detail": f"{rows.n:,} rows, {config.epochs} epochs, width {config.width}, k {config.k}, {config.variant}",
        **_overall(reports),
    }


def _measures(progress: Progress) -> Event:
    """What people watch, besides speed and time left."""
    return {"fvu": progress.fvu, "l0": progress.l0, "dead": progress.dead}


def _overall(reports: Sequence[Progress]) -> Event:
    """The last measures, and the median speed: a pause of the machine does not change it. Nothing without a report."""
    if not reports:
        return {}
    return {**_measures(reports[-1]), "activations_per_s": statistics.median(one.rows_per_s for one in reports)}


def _claim_stdout() -> TextIO:
    """The stream events go to; whatever libraries print goes to stderr instead."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _say(stream: TextIO, event: Event) -> None:
    stream.write(json.dumps(event) + "\n")
    stream.flush()


def _only_one(folder: Path) -> TextIO:
    """Waits until no other process trains into this folder: a paused owner may leave one behind for a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _end_with_owner() -> None:
    while os.read(0, 4096):
        pass
    os._exit(_OWNER_GONE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
