"""House rules of the Python code that no linter checks: what each rule forbids, and that the repository keeps it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
GENERIC_NAMES = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
PERSONAL_LABELS = {"history", "item", "item_id", "query", "user", "user_id"}
METRIC_TYPES = {"Counter", "Gauge", "Histogram", "Summary", "CounterMetricFamily", "GaugeMetricFamily"}
MAX_LINES = 350


def own_modules() -> list[Path]:
    """Every Python file of the repository that people write, tracked or about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listing.split("\0") if name and not name.startswith("shared/recsae/v1/")]
    return [ROOT / name for name in names if (ROOT / name).exists()]


def dotted(node: ast.expr) -> str:
    """`torch.load` for the expression that reads so, else the empty string."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([node.id, *parts]) if isinstance(node, ast.Name) else ""


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Dotted names imported anywhere in the module, with their lines; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def is_constant(call: ast.Call, keyword: str, value: object) -> bool:
    """Whether the call says `keyword=value` literally."""
    given = {word.arg: word.value for word in call.keywords}
    node = given.get(keyword)
    return isinstance(node, ast.Constant) and node.value is value


def pickles(tree: ast.Module) -> list[str]:
    """Pickle in any form: a pickler's import, an unrestricted torch.load, numpy's object arrays."""
    found = [f"line {line}: imports {name}" for name, line in imports(tree) if name.split(".")[0] in PICKLERS]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if dotted(node.func) == "torch.load" and not is_constant(node, "weights_only", True):
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if is_constant(node, "allow_pickle", True):
            found.append(f"line {node.lineno}: allow_pickle=True")
    return found


def sleeps(tree: ast.Module) -> list[str]:
    """Sleeping where a test should wait; allowed between two looks at another process, with a deadline asserted."""
    found = [f"line {line}: imports {name}" for name, line in imports(tree) if name == "time.sleep"]
    polls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.While) and any(isinstance(part, ast.Assert) for part in node.body)
    ]
    allowed = {id(part) for poll in polls for part in ast.walk(poll)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) == "time.sleep"]
    return found + [f"line {call.lineno}: time.sleep" for call in calls if id(call) not in allowed]


def personal_labels(tree: ast.Module) -> list[str]:
    """Metrics whose labels name people, items or histories (ARCHITECTURE.md, invariant 9)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in METRIC_TYPES:
            given = [*node.args, *(word.value for word in node.keywords)]
            sequences = [part.elts for part in given if isinstance(part, ast.List | ast.Tuple)]
            labels = {part.value for parts in sequences for part in parts if isinstance(part, ast.Constant)}
            if bad := labels & PERSONAL_LABELS:
                found.append(f"line {node.lineno}: metric labels {sorted(map(str, bad))}")
    return found


def work_at_import(tree: ast.Module) -> list[str]:
    """Statements of a package's `__init__` beyond its docstring and constants."""
    allowed = (ast.Expr, ast.Assign, ast.AnnAssign)
    return [f"line {node.lineno}: {type(node).__name__}" for node in tree.body if not isinstance(node, allowed)]


def kept_by(paths: list[Path], rule: Callable[[ast.Module], list[str]]) -> list[str]:
    """What breaks the rule in these files, each with its path."""
    found = []
    for path in paths:
        found += [f"{path.relative_to(ROOT)}: {what}" for what in rule(ast.parse(path.read_text(), str(path)))]
    return found


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (pickles, "import pickle"),
        (pickles, "def f():\n    from joblib import load"),
        (pickles, "torch.load(path)"),
        (pickles, "torch.load(path, weights_only=False)"),
        (pickles, "numpy.load(path, allow_pickle=True)"),
        (sleeps, "import time\ntime.sleep(1)"),
        (sleeps, "from time import sleep"),
        (sleeps, "while not done():\n    time.sleep(1)"),
        (personal_labels, "Counter('asked', 'How often', ['model', 'user_id'])"),
        (personal_labels, "prometheus_client.Gauge('x', 'X', labelnames=('item',))"),
        (work_at_import, '"""Doc."""\nimport numpy'),
    ],
)
def test_each_rule_sees_what_it_forbids(rule: Callable[[ast.Module], list[str]], source: str) -> None:
    assert rule(ast.parse(source))


def test_nothing_reads_or_writes_pickles() -> None:
    assert kept_by(own_modules(), pickles) == []


def test_tests_wait_for_something_instead_of_sleeping() -> None:
    assert kept_by([path for path in own_modules() if ROOT / "tests" in path.parents], sleeps) == []


def test_no_metric_is_labelled_with_people_or_items() -> None:
    assert kept_by(own_modules(), personal_labels) == []


def test_packages_do_nothing_at_import() -> None:
    packages = [path for path in own_modules() if path.name == "__init__.py"]
    assert len(packages) > 10
    assert kept_by(packages, work_at_import) == []


def test_modules_hold_one_idea() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in own_modules()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_modules_are_called_by_what_they_hold() -> None:
    named = [path.relative_to(ROOT) for path in own_modules()]
    assert [str(path) for path in named if GENERIC_NAMES & {path.stem, *path.parts[:-1]}] == []


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
