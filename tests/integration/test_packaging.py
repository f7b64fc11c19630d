"""The wheel with one role's extra, in a clean environment, is enough for that role: it starts and answers."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from recsae.conformance import suite as conformance
from recsae.conformance.outcomes import Verdict
from recsae.conformance.over_grpc import GrpcService
from recsae.recommenders.bundle import publish_bundle
from recsae.recommenders.synthetic import tiny_bundle
from recsae.rpc.client import channel
from recsae.store.artifacts import ArtifactStore
from recsae.store.files import write_atomic
from recsae.v1 import common_pb2, recommender_pb2, recommender_pb2_grpc

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "python" / "exporter.py"
# Kept between runs, since they change with their lock alone; each test installs the wheel anew.
CACHE = ROOT / ".cache" / "roles"
READY_S = 60.0
# What `pip install recsae` brings: what a production recommender has to take in.
BASE = ("grpcio", "numpy", "protobuf", "typing-extensions")
HEAVY = ("torch", "scipy", "numba", "matplotlib", "pyarrow", "onnx", "onnxscript", "pandas", "typer", "rich")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Output of a program that has to succeed, without this project on its path."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd or tempfile.gettempdir(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "-qq")
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("recsae-*.whl")
    return path


@pytest.fixture(scope="module")
def install(wheel: Path) -> Callable[[str, str], Path]:
    """`install(lock, requirement)` gives the Python of an environment that holds a lock and the wheel, nothing else."""

    @functools.cache
    def into_clean_environment(lock: str, requirement: str) -> Path:
        locked = lock_file(lock)
        content = hashlib.sha256(locked.read_bytes() + sys.version.encode()).hexdigest()[:16]
        folder = CACHE / f"{lock}-{content}"
        python = folder / "bin" / "python"
        pip = (python, "-m", "pip", "--disable-pip-version-check", "-qq")
        if not (folder / "complete").exists():
            venv.create(folder, clear=True, with_pip=True)
            run(*pip, "install", "--no-compile", "--require-hashes", "--no-deps", "-r", locked)
            (folder / "complete").touch()
        run(*pip, "uninstall", "--yes", "recsae")
        # No index: what the extra asks for is in its lock, or this fails.
        run(*pip, "install", "--no-index", f"{requirement} @ {wheel.as_uri()}")
        return python

    return into_clean_environment


def lock_file(name: str) -> Path:
    """The lock of that name; "newest" = the base dependencies at the versions the whole project is tested with."""
    folder = ROOT / "requirements"
    if name != "newest":
        return folder / f"{name}.txt"
    entries = re.split(r"^(?=[a-z0-9])", (folder / "dev.txt").read_text(), flags=re.MULTILINE)
    content = "".join(entry for entry in entries if entry.partition("==")[0] in BASE)
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / "newest.txt"
    write_atomic(path, content.encode())
    return path


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact store with one small model; its version is in the file `version` beside the kinds."""
    root = tmp_path_factory.mktemp("artifacts")
    folder = tmp_path_factory.mktemp("bundle")
    tiny_bundle(folder)
    (root / "version").write_text(publish_bundle(ArtifactStore(str(root)), folder))
    return root


def test_wheel_holds_the_library_and_the_services_alone(wheel: Path) -> None:
    names = run(sys.executable, "-m", "zipfile", "--list", wheel)
    tops = {line.split("/")[0] for line in names.splitlines()[1:]}
    assert {name for name in tops if not name.endswith(".dist-info")} == {
        "recsae",
        "recsae_interpreter",
        "recsae_recommender",
        "recsae_worker",
    }
    assert "recsae/py.typed" in names
    assert ".dist-info/licenses/LICENSE" in names


@pytest.mark.parametrize("role", ["recommender", "interpreter"])
def test_serving_role_needs_no_torch(install: Callable[[str, str], Path], role: str) -> None:
    python = install(role, f"recsae[{role}]")
    code = f"""
    import importlib, importlib.util, json, pkgutil
    package = importlib.import_module("recsae_{role}")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    imported = [importlib.import_module(name).__name__ for name in names if not name.endswith("__main__")]
    heavy = [name for name in {HEAVY!r} if importlib.util.find_spec(name)]
    print(json.dumps({{"imported": imported, "heavy": heavy, "where": package.__file__}}))
    """
    found = json.loads(run(python, "-c", textwrap.dedent(code)))
    assert found["heavy"] == []
    assert len(found["imported"]) > 5
    assert str(ROOT / "services") not in found["where"]


def test_recommender_and_interpreter_serve_from_their_own_environments(
    install: Callable[[str, str], Path], artifacts: Path, redis_url: str, tmp_path: Path
) -> None:
    version = (artifacts / "version").read_text()
    history = common_pb2.History(item_ids=["i1", "i2"])
    addresses = {role: f"127.0.0.1:{free_port()}" for role in ("recommender", "interpreter")}
    settings = {
        "recommender": {"MODELS": f"tiny={version}", "INTERPRETER": addresses["interpreter"]},
        "interpreter": {"STATE_URL": redis_url, "BUS_URL": redis_url, "RECOMMENDERS": addresses["recommender"]},
    }
    with (
        serving("recommender", install, addresses, settings, artifacts, tmp_path),
        serving("interpreter", install, addresses, settings, artifacts, tmp_path),
        grpc.insecure_channel(addresses["recommender"]) as channel,
    ):
        stub = recommender_pb2_grpc.RecommenderStub(channel)
        reply = stub.Recommend(recommender_pb2.RecommendRequest(history=history, k=5), timeout=10)
    assert len(reply.items) == 5


@contextmanager
def serving(
    role: str,
    install: Callable[[str, str], Path],
    addresses: dict[str, str],
    settings: dict[str, dict[str, str]],
    artifacts: Path,
    folder: Path,
) -> Iterator[None]:
    """A service's process while the block runs; on entry its health is SERVING, on exit it ended by itself."""
    port = addresses[role].rsplit(":", 1)[1]
    common = {"PORT": port, "METRICS_PORT": "0", "ARTIFACTS": str(artifacts), "DRAIN_PROBE_S": "0"}
    variables = {f"RECSAE_{role.upper()}_{name}": value for name, value in {**common, **settings[role]}.items()}
    python = install(role, f"recsae[{role}]")
    log = folder / f"{role}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [python, "-m", f"recsae_{role}"],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **variables},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        assert becomes_healthy(addresses[role]), log.read_text()
        yield
    finally:
        process.terminate()
        status = process.wait(timeout=30)
    assert status == 0, log.read_text()


def becomes_healthy(address: str) -> bool:
    """Watches the health of a service that may not listen yet; True when it is SERVING in time."""
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=READY_S, wait_for_ready=True
        )
        try:
            serving_now = any(reply.status == health_pb2.HealthCheckResponse.SERVING for reply in watch)
        except grpc.RpcError:
            return False
        watch.cancel()
        return serving_now


def free_port() -> int:
    """A loopback port nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("lock", ["oldest", "newest"])
def test_the_sdk_answers_a_call_on_the_oldest_and_the_newest_grpc(
    install: Callable[[str, str], Path], lock: str
) -> None:
    python = install(lock, "recsae")
    code = f"""
    import importlib.metadata, json, runpy
    import grpc, numpy as np
    from recsae.rpc.tensors import from_tensor
    from recsae.sdk.exporter import Exporter
    from recsae.v1 import common_pb2 as common, recommender_pb2 as messages, recommender_pb2_grpc as services
    import recsae.v1.interpreter_pb2_grpc, recsae.v1.pipeline_pb2_grpc, recsae.v1.steering_pb2_grpc

    model = runpy.run_path({str(EXAMPLE)!r})["FadingSums"](["a", "b"], np.eye(2, dtype=np.float32))
    histories = messages.HistoryList(histories=[common.History(item_ids=["a"]), common.History(item_ids=["a", "b"])])
    with Exporter(model).serve() as serving, grpc.insecure_channel(f"127.0.0.1:{{serving.port}}") as channel:
        stub = services.ActivationExporterStub(channel)
        reply = stub.ExportActivations(messages.ExportActivationsRequest(histories=histories), timeout=10)
    rows = from_tensor(reply.batch.activations, name="activations", dtype=np.float32)
    installed = {{found.metadata["Name"].lower().replace("_", "-") for found in importlib.metadata.distributions()}}
    print(json.dumps({{"grpc": grpc.__version__, "rows": rows.tolist(), "installed": sorted(installed)}}))
    """
    found = json.loads(run(python, "-c", textwrap.dedent(code)))
    assert found["rows"] == [[1.0, 0.0], [pytest.approx(0.9), 1.0]]
    assert found["grpc"] == pinned(lock, "grpcio")
    assert set(found["installed"]) - {"pip", "setuptools"} == {"recsae", *BASE}


@pytest.mark.parametrize("lock", ["oldest", "newest"])
def test_the_numpy_example_keeps_the_contract_with_the_base_dependencies_alone(
    install: Callable[[str, str], Path], lock: str
) -> None:
    process = subprocess.Popen(
        [install(lock, "recsae"), EXAMPLE, "127.0.0.1:0"],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("fading-sums on port ")
            with channel(f"127.0.0.1:{line.split()[-1]}") as opened:
                outcomes = list(conformance.run(GrpcService(opened)))
        finally:
            process.terminate()
    assert [one for one in outcomes if one.verdict in (Verdict.FAILED, Verdict.DOUBTFUL)] == []
    assert sum(one.verdict == Verdict.PASSED for one in outcomes) > 45


def pinned(lock: str, package: str) -> str:
    """Version of a package in a lock."""
    found = re.search(rf"^{package}==(\S+)", lock_file(lock).read_text(), re.MULTILINE)
    assert found is not None, f"{package} is not in the lock {lock!r}"
    return found[1]
