"""The files in deploy/ and docker-compose.yml, checked by the programs that read them; nothing here needs Docker."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsae.rpc.server import build_server
from recsae.rpc.settings import ServiceSettings
from recsae.telemetry.metrics import MetricsServer, MetricsTls, RpcMetrics, new_registry

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
TOOLS = Path(sys.executable).parent
PROMETHEUS = "Debian: apt-get install prometheus"
SECRETS = {
    "RECSAE_TOKEN": "0123456789abcdef",
    "RECSAE_PLATFORM_TOKEN": "fedcba9876543210",
    "GRAFANA_PASSWORD": "secret",
}


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a program at the repository's root."""
    environment = {**os.environ, **variables}
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file as Compose understands it."""
    done = run(TOOLS / "docker-compose", "--profile", "command", "config", "--format", "json", **SECRETS)
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


def test_compose_asks_for_secrets_instead_of_inventing_them() -> None:
    for secret in SECRETS:
        command = (TOOLS / "docker-compose", "--profile", "command", "config", "--quiet")
        done = run(*command, **(SECRETS | {secret: ""}))
        assert done.returncode != 0
        assert secret in done.stderr


def test_compose_has_every_part_of_the_platform(compose: dict[str, Any]) -> None:
    parts = {"state", "bus", "recommender", "interpreter", "worker", "beat", "exporter", "prometheus", "grafana"}
    assert parts <= compose.keys()


def test_compose_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose.values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_only_their_owners_reach_the_redis_servers(compose: dict[str, Any]) -> None:
    on_stores = {name for name, service in compose.items() if "stores" in (service.get("networks") or {})}
    assert on_stores == {"state", "bus", "interpreter", "worker", "beat", "exporter"}


def test_services_that_run_on_say_whether_they_are_healthy(compose: dict[str, Any]) -> None:
    silent = {name for name, service in compose.items() if not service.get("healthcheck", {}).get("test")}
    assert silent == {"certificates", "recsae", "beat"}


def test_images_are_named_with_a_version(compose: dict[str, Any]) -> None:
    foreign = [service["image"] for service in compose.values() if "build" not in service]
    assert [image for image in foreign if not re.search(r":v?\d+\.\d+", image)] == []


@pytest.mark.parametrize(
    ("service", "prefix", "settings"),
    [
        ("recommender", "RECSAE_RECOMMENDER_", "recsae_recommender.settings:RecommenderSettings"),
        ("interpreter", "RECSAE_INTERPRETER_", "recsae_interpreter.settings:InterpreterSettings"),
        ("worker", "RECSAE_WORKER_", "recsae_worker.settings:WorkerSettings"),
        ("exporter", "RECSAE_WORKER_", "recsae_worker.settings:WorkerSettings"),
    ],
)
def test_compose_sets_only_what_services_read(
    compose: dict[str, Any], service: str, prefix: str, settings: str
) -> None:
    module, _, name = settings.partition(":")
    known: set[str] = set(getattr(importlib.import_module(module), name).model_fields)
    given = {variable.removeprefix(prefix).lower() for variable in compose[service]["environment"]}
    assert given - known == set()


@pytest.mark.parametrize(
    ("service", "prefix", "role"),
    [("recommender", "RECSAE_RECOMMENDER_", "viewer"), ("interpreter", "RECSAE_INTERPRETER_", "operator")],
)
def test_services_of_the_compose_file_know_each_others_and_the_commands_token(
    compose: dict[str, Any], service: str, prefix: str, role: str
) -> None:
    gate = ServiceSettings(tokens=compose[service]["environment"][f"{prefix}TOKENS"]).gate()

    def role_of(name: str, variable: str) -> str:
        bearer = {"authorization": f"Bearer {compose[name]['environment'][variable]}"}
        return str(gate.admit("/recsae.v1.Recommender/Recommend", bearer).role)

    assert role_of("recsae", "RECSAE_TOKEN") == "admin"
    for peer in ("recommender", "interpreter", "worker"):
        assert role_of(peer, f"RECSAE_{peer.upper()}_PEER_TOKEN") == role


def test_example_of_secrets_names_every_variable_of_the_compose_file() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    named = set(re.findall(r"^(\w+)=", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE))
    assert used == named


def test_dockerfile_is_clean_and_no_role_runs_as_root() -> None:
    path = DEPLOY / "docker" / "Dockerfile"
    done = run(TOOLS / "hadolint", path)
    assert done.returncode == 0, done.stdout
    stages = re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM|\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
    bases = {name: base for base, name, _ in stages}
    users = {name: re.findall(r"^USER (\S+)", body, re.MULTILINE) for _, name, body in stages}
    assert users["runtime"] == ["10001:10001"]
    assert {bases[role] for role in ("recommender", "interpreter", "worker")} == {"runtime"}
    assert [users[role] for role in ("recommender", "interpreter", "worker")] == [[], [], []]


@pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
def test_prometheus_accepts_its_configuration(require_binary: Callable[[str, str], str], name: str) -> None:
    # Certificates exist in the deployment only, hence syntax alone; the rules are checked with local.yml.
    flags = ["--syntax-only"] if name == "prometheus.yml" else []
    done = run(require_binary("promtool", PROMETHEUS), "check", "config", *flags, DEPLOY / "prometheus" / name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should(require_binary: Callable[[str, str], str]) -> None:
    tests = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
    done = run(require_binary("promtool", PROMETHEUS), "test", "rules", *tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    rules = [yaml.safe_load(path.read_text()) for path in (DEPLOY / "prometheus" / "rules").glob("*.yml")]
    alerts = {rule["alert"] for file in rules for group in file["groups"] for rule in group["rules"]}
    tests = [yaml.safe_load(path.read_text()) for path in (DEPLOY / "prometheus" / "tests").glob("*.yml")]
    cases = [case for file in tests for test in file["tests"] for case in test["alert_rule_test"]]
    assert alerts == {case["alertname"] for case in cases if case.get("exp_alerts")}


def expressions() -> dict[str, str]:
    """Every query of every dashboard and alert, by where it stands."""
    found = {}
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = target["expr"]
    for path in (DEPLOY / "prometheus" / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found |= {f"{path.stem}: {rule['alert']}": rule["expr"] for rule in group["rules"]}
    return found


def test_queries_ask_for_metrics_that_the_code_exports() -> None:
    source = "".join(
        path.read_text()
        for folder in ("shared/recsae", "services")
        for path in (ROOT / folder).rglob("*.py")
        if "/v1/" not in str(path)
    )
    exported = set(re.findall(r'"(recsae_[a-z0-9_]+)"', source))
    unknown = {}
    for where, expression in expressions().items():
        names = set(re.findall(r"\brecsae_[a-z0-9_]+", expression))
        bare = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in names}
        if missing := bare - exported:
            unknown[where] = missing
    assert unknown == {}


def test_queries_are_well_formed(require_binary: Callable[[str, str], str], tmp_path: Path) -> None:
    rules = []
    for number, expression in enumerate(expressions().values()):
        plain = expression.replace("$__rate_interval", "1m")
        rules.append({"record": f"query_{number}", "expr": re.sub(r"\$\w+", ".*", plain)})
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = run(require_binary("promtool", PROMETHEUS), "check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_are_explained_and_provisioned(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert panels
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert [panel["title"] for panel in panels if not panel.get("description")] == []
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    cells = [cell for panel in dashboard["panels"] for cell in grid_cells(panel["gridPos"])]
    assert len(cells) == len(set(cells)), "panels overlap"


def grid_cells(position: dict[str, int]) -> Iterator[tuple[int, int]]:
    """Cells of Grafana's 24-column grid that a panel covers."""
    for x in range(position["x"], position["x"] + position["w"]):
        assert x < 24
        yield from ((x, y) for y in range(position["y"], position["y"] + position["h"]))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, require_binary: Callable[[str, str], str]) -> Path:
    """Certificates as the deployment makes them."""
    require_binary("openssl", "Debian: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    done = run(DEPLOY / "docker" / "certificates.sh", folder, "recommender", "exporter")
    assert done.returncode == 0, done.stderr
    return folder


def settings_with(tls: Path, **more: Any) -> ServiceSettings:
    """Settings of a service that shows the deployment's certificates and asks callers for theirs."""
    return ServiceSettings(
        tls_cert=tls / "service.pem", tls_key=tls / "service.key", tls_client_ca=tls / "ca.pem", **more
    )


def probe(role: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The health check of the containers."""
    prefix = f"RECSAE_{role.upper()}_"
    return run(
        sys.executable, "-m", "recsae.rpc.probe", role, **{prefix + key: text for key, text in variables.items()}
    )


def test_health_check_follows_a_service_behind_client_certificates(tls: Path) -> None:
    server = build_server(settings_with(tls, drain_probe_s=0, drain_grace_s=0), RpcMetrics(new_registry()))
    port = str(server.start())
    shown = {"TLS_CERT": str(tls / "service.pem"), "TLS_KEY": str(tls / "service.key")}
    complete = {"PORT": port, **shown, "TLS_CLIENT_CA": str(tls / "ca.pem")}
    try:
        starting = probe("recommender", **complete)
        server.mark_ready()
        ready = probe("recommender", **complete)
        stranger = probe("recommender", PORT=port)
    finally:
        server.drain()
    gone = probe("recommender", **complete)
    assert [done.returncode for done in (starting, ready, stranger, gone)] == [1, 0, 1, 1]
    assert "NOT_SERVING" in starting.stderr


def test_metrics_are_given_to_holders_of_a_certificate_only(tls: Path) -> None:
    shown = MetricsTls(tls / "service.pem", tls / "service.key", tls / "ca.pem")
    server = MetricsServer(new_registry(), 0, "127.0.0.1", shown)
    variables = {"METRICS_PORT": str(server.port), "TLS_CERT": str(tls / "service.pem")}
    try:
        known = probe("worker", **variables, TLS_KEY=str(tls / "service.key"), TLS_CLIENT_CA=str(tls / "ca.pem"))
        stranger = probe("worker", METRICS_PORT=str(server.port))
    finally:
        server.close()
    assert [known.returncode, stranger.returncode] == [0, 1]


def test_certificates_are_made_once(tls: Path) -> None:
    before = (tls / "client.pem").read_bytes()
    done = run(DEPLOY / "docker" / "certificates.sh", tls, "other")
    assert "already" in done.stdout
    assert (tls / "client.pem").read_bytes() == before
