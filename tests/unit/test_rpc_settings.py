"""Contradictory settings are refused at start, in a sentence that names both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from recsae.errors import InvalidRequestError
from recsae.rpc.client import ClientOptions, channel
from recsae.rpc.loopback import is_loopback
from recsae.rpc.settings import ServiceSettings, load_settings

TOKEN = "alice:operator:0123456789abcdef"


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


def test_token_in_the_clear_to_another_machine_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"10\.0\.0\.5:50052 in the clear"):
        channel("10.0.0.5:50052", ClientOptions(token="0123456789abcdef"))
