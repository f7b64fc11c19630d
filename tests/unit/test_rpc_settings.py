"""Contradictory settings are refused at start, in a sentence that names both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from recsae.errors import InvalidRequestError, ResourceExhaustedError
from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.loopback import is_loopback
from recsae.rpc.principals import Principal
from recsae.rpc.roles import Role
from recsae.rpc.settings import ServiceSettings, load_settings
from recsae_interpreter.settings import InterpreterSettings
from recsae_recommender.settings import RecommenderSettings
from recsae_worker.settings import WorkerSettings

TOKEN = "alice:operator:0123456789abcdef"
MARKER = "marker-0123456789"


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="RECSAE_TEST_", extra="ignore", frozen=True)


def make(**values: Any) -> Settings:
    return Settings(**values)


def test_defaults_bind_loopback_only() -> None:
    assert is_loopback(make().host)
    assert is_loopback(make().metrics_host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
@pytest.mark.parametrize(
    "credentials",
    [{}, {"tokens": TOKEN}, {"tls_cert": Path("c.pem"), "tls_key": Path("k.pem")}],
    ids=["bare", "tokens only", "tls only"],
)
def test_public_bind_without_tls_and_tokens_is_refused_naming_both(host: str, credentials: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"RECSAE_TEST_TLS_CERT.*RECSAE_TEST_TOKENS"):
        make(host=host, **credentials)


def test_public_bind_with_tls_and_tokens_is_accepted() -> None:
    assert make(host="0.0.0.0", tls_cert="c.pem", tls_key="k.pem", tokens=TOKEN).host == "0.0.0.0"


def test_public_bind_with_tls_and_principals_of_certificates_is_accepted() -> None:
    made = make(host="0.0.0.0", tls_cert="c.pem", tls_key="k.pem", tls_client_ca="a.pem", tls_principals="ops=admin")
    assert made.tls_principals == ("ops=admin",)


def test_principals_of_certificates_need_the_ca_they_are_checked_by() -> None:
    with pytest.raises(ValidationError, match=r"RECSAE_TEST_TLS_PRINCIPALS needs RECSAE_TEST_TLS_CLIENT_CA"):
        make(tls_cert="c.pem", tls_key="k.pem", tls_principals="ops=admin")


def test_a_name_with_two_roles_is_refused() -> None:
    credentials = {"tls_cert": "c.pem", "tls_key": "k.pem", "tls_client_ca": "a.pem", "tokens": TOKEN}
    with pytest.raises(ValidationError, match="'alice' comes as operator and as admin"):
        make(**credentials, tls_principals="alice=admin")


def test_limits_of_principals_reach_the_gate() -> None:
    gate = make(tokens=TOKEN, principal_rate=0.001, principal_burst=1, principal_in_flight=1).gate()
    bearer = {"authorization": "Bearer 0123456789abcdef"}
    gate.enter(gate.admit("/recsae.v1.Recommender/Rank", bearer))
    for limit in ("1 calls in flight", "more than 0.001 calls a second"):
        with pytest.raises(ResourceExhaustedError, match=limit):
            gate.admit("/recsae.v1.Recommender/Rank", bearer)
        gate.leave(Principal("alice", Role.OPERATOR))
    assert not make(tokens=TOKEN).gate().holds_calls


def test_public_metrics_without_client_certificates_are_refused() -> None:
    with pytest.raises(ValidationError, match="RECSAE_TEST_TLS_CLIENT_CA"):
        make(metrics_host="0.0.0.0", tls_cert="c.pem", tls_key="k.pem")


def test_half_a_key_pair_is_refused_naming_both_halves() -> None:
    with pytest.raises(ValidationError, match=r"RECSAE_TEST_TLS_CERT and RECSAE_TEST_TLS_KEY"):
        make(tls_cert="c.pem")


def test_tokens_are_read_from_commas_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSAE_TEST_TOKENS", f"{TOKEN}, bob:viewer:fedcba9876543210")
    settings = Settings()
    assert len(settings.tokens) == 2
    assert "0123456789abcdef" not in repr(settings)


def test_wrong_settings_end_the_process_with_the_reasons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSAE_TEST_PORT", "99999")
    monkeypatch.setenv("RECSAE_TEST_TOKENS", "alice:admin:short-secret")
    with pytest.raises(SystemExit) as ended:
        load_settings(Settings)
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert "RECSAE_TEST_PORT" in shown
    assert "shorter than 16" in shown
    assert "short-secret" not in shown


@pytest.mark.parametrize("token", ["0123456789abcdef", "alice:0123456789abcdef", "alice:root:0123456789abcdef"])
def test_a_token_without_a_role_is_refused_with_the_form_and_without_the_secret(token: str) -> None:
    with pytest.raises(ValidationError) as refused:
        make(tokens=token)
    assert "`name:role:secret`" in str(refused.value)
    assert "0123456789abcdef" not in str(refused.value) + repr(refused.value)


def test_no_setting_of_any_service_shows_a_secret() -> None:
    kinds: dict[Any, dict[str, str]] = {
        InterpreterSettings: {"state_url": f"redis://:{MARKER}@h:1/0", "bus_url": f"redis://u:{MARKER}@h:1/0"},
        WorkerSettings: {
            "state_url": f"redis://:{MARKER}@h:1/0",
            "bus_url": f"redis://h:1/0?password={MARKER}",
            "llm_api_key": MARKER,
        },
        RecommenderSettings: {
            "models": "m=0123456789abcdef",
            "history": f"redis://:{MARKER}@h:1/0",
            "histories": f"m=redis://:{MARKER}@h:1/0",
        },
    }
    for kind, values in kinds.items():
        settings = kind(tokens=f"alice:admin:{MARKER}", peer_token=MARKER, **values)
        shown = f"{settings!r} {settings} {settings.client_options()!r} {settings.gate()!r}"
        assert MARKER not in shown
        assert settings.client_options().token == MARKER


@pytest.mark.parametrize("kind", [InterpreterSettings, WorkerSettings])
def test_an_unreadable_redis_url_is_refused_without_its_password(kind: type[ServiceSettings]) -> None:
    with pytest.raises(ValidationError, match="percent-encoded") as refused:
        kind(state_url=f"redis://user:pa#{MARKER}@h:1/0")  # type: ignore[call-arg]
    assert MARKER not in str(refused.value)


def test_a_history_store_of_no_model_is_refused_without_its_password() -> None:
    for history in (f"other=redis://:{MARKER}@h:1/0", f"redis://:{MARKER}@h:1/0"):
        with pytest.raises(ValidationError, match="no model out of m") as refused:
            RecommenderSettings(models="m=0123456789abcdef", histories=history)  # type: ignore[arg-type]
        assert MARKER not in str(refused.value)


def test_token_in_the_clear_to_another_machine_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"10\.0\.0\.5:50052 in the clear"):
        channel("10.0.0.5:50052", ClientOptions(token="0123456789abcdef"))
