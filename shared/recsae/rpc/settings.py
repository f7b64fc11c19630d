"""Settings every service has, with contradictions refused in a sentence that names both.

Read once, in a service's `__main__`, from environment variables with the service's prefix, and passed down.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from recsae.errors import InvalidRequestError
from recsae.rpc.auth import Gate
from recsae.rpc.client import ClientOptions
from recsae.rpc.loopback import is_loopback
from recsae.rpc.principals import read_certificate_principals, read_tokens
from recsae.rpc.quotas import Limits, Refused
from recsae.store.urls import readable_url


def split_commas(value: object) -> object:
    """A comma-separated string as a list; other values as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _readable(url: str) -> str:
    try:
        return readable_url(url)
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None


CommaSeparated = BeforeValidator(split_commas)
RedisUrl = Annotated[str, AfterValidator(_readable), Field(repr=False)]
"""A URL that may hold a password: never shown with the settings."""
Port = Annotated[int, Field(ge=0, le=65535)]


class ServiceSettings(BaseSettings):
    """What every service reads. Subclasses set `env_prefix` and the defaults of the ports."""

    # An error that quoted its input would show a secret.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", description="Address the gRPC server binds.")
    port: Port = Field(default=0, description="Port of the gRPC server; 0 = a free one.")
    metrics_host: str = Field(default="127.0.0.1", description="Address the metrics endpoint binds.")
    metrics_port: Port = Field(default=0, description="Port of the metrics endpoint; 0 = a free one.")
    tls_cert: Path | None = Field(default=None, description="Server certificate chain, PEM.")
    tls_key: Path | None = Field(default=None, description="Its private key, PEM.")
    tls_client_ca: Path | None = Field(
        default=None, description="CA of client certificates, PEM; set = callers need one."
    )
    tokens: Annotated[tuple[SecretStr, ...], NoDecode, CommaSeparated] = Field(
        default=(),
        description="Bearer tokens callers may use, `name:role:secret` with a role out of viewer, operator and admin, "
        "separated by commas; none and no `tls_principals` = everyone on this machine is an admin.",
    )
    tls_principals: Annotated[tuple[str, ...], NoDecode, CommaSeparated] = Field(
        default=(),
        description="Callers known by their client certificate, `name=role` with its common name (or first "
        "alternative name), separated by commas; they need no token, and one they send wins.",
    )
    principal_rate: float = Field(
        default=0, ge=0, le=1e6, description="Calls a second each principal may make in the long run; 0 = no limit."
    )
    principal_burst: int = Field(
        default=100, ge=1, le=1_000_000, description="Calls at once after a pause that `principal_rate` allows."
    )
    principal_in_flight: int = Field(
        default=0, ge=0, le=100_000, description="Calls each principal may hold, open streams included; 0 = no limit."
    )
    peer_ca: Path | None = Field(default=None, description="CA that other services' certificates are checked by, PEM.")
    peer_cert: Path | None = Field(default=None, description="Client certificate shown to other services, PEM.")
    peer_key: Path | None = Field(default=None, description="Its private key, PEM.")
    peer_token: SecretStr | None = Field(default=None, description="Bearer secret sent to other services.")
    artifacts: str = Field(default="artifacts", description="URL of the artifact store.")
    max_workers: int = Field(default=32, ge=1, le=1024, description="Unary calls served at once.")
    max_queue: int = Field(default=256, ge=0, description="Unary calls that may wait besides; more are shed.")
    max_streams: int = Field(default=64, ge=1, le=4096, description="Streams open at once; more are shed.")
    max_stream_s: float = Field(
        default=3600, gt=0, description="Longest life of a stream in seconds; clients reconnect."
    )
    max_message_mb: int = Field(default=64, ge=1, le=1024, description="Largest message in MiB.")
    drain_probe_s: float = Field(
        default=2, ge=0, le=60, description="On SIGTERM: seconds of serving on while NOT_SERVING is seen by probes."
    )
    drain_grace_s: float = Field(default=20, ge=0, le=600, description="Most seconds for calls in flight after that.")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        default="INFO", description="Least level logged."
    )
    log_format: Literal["json", "console"] = Field(default="json", description="JSON lines, or text for people.")

    @field_validator("tokens")
    @classmethod
    def _tokens_are_read(cls, tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        try:
            read_tokens([token.get_secret_value() for token in tokens])
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None
        return tokens

    @field_validator("tls_principals")
    @classmethod
    def _principals_are_read(cls, principals: tuple[str, ...]) -> tuple[str, ...]:
        try:
            read_certificate_principals(principals)
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None
        return principals

    @model_validator(mode="after")
    def _credentials_agree(self) -> Self:
        prefix = self.model_config.get("env_prefix", "")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(f"{prefix}TLS_CERT and {prefix}TLS_KEY belong together; set both or none")
        if (self.peer_cert is None) != (self.peer_key is None):
            raise ValueError(f"{prefix}PEER_CERT and {prefix}PEER_KEY belong together; set both or none")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(f"{prefix}TLS_CLIENT_CA needs {prefix}TLS_CERT and {prefix}TLS_KEY")
        if self.tls_principals and self.tls_client_ca is None:
            raise ValueError(
                f"{prefix}TLS_PRINCIPALS needs {prefix}TLS_CLIENT_CA, by which client certificates are checked"
            )
        if not is_loopback(self.host) and (self.tls_cert is None or not (self.tokens or self.tls_principals)):
            raise ValueError(
                f"{prefix}HOST={self.host} can be reached from other machines: set TLS ({prefix}TLS_CERT and "
                f"{prefix}TLS_KEY) and who may call ({prefix}TOKENS or {prefix}TLS_PRINCIPALS), or bind 127.0.0.1"
            )
        if not is_loopback(self.metrics_host) and self.tls_client_ca is None:
            raise ValueError(
                f"{prefix}METRICS_HOST={self.metrics_host} can be reached from other machines: set TLS with client "
                f"certificates ({prefix}TLS_CERT, {prefix}TLS_KEY and {prefix}TLS_CLIENT_CA), or bind 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _one_role_per_name(self) -> Self:
        try:
            self.gate()
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def shares_port(self) -> bool:
        """True when other processes may bind the port of the gRPC server too."""
        return False

    def gate(self, refused: Refused | None = None) -> Gate:
        """Who may call this service; `refused` counts refusals by the limits, by principal and limit."""
        limits = Limits(self.principal_rate, self.principal_burst, self.principal_in_flight)
        tokens = read_tokens([token.get_secret_value() for token in self.tokens])
        certificates = read_certificate_principals(self.tls_principals)
        return Gate(tokens, certificates, limits, refused) if refused else Gate(tokens, certificates, limits)

    def client_options(self) -> ClientOptions:
        """How this service calls others."""
        return ClientOptions(
            ca=self.peer_ca,
            certificate=self.peer_cert,
            key=self.peer_key,
            token=self.peer_token.get_secret_value() if self.peer_token else None,
            max_message_bytes=self.max_message_mb << 20,
        )


S = TypeVar("S", bound=ServiceSettings)


def load_settings(kind: type[S]) -> S:
    """The settings from the environment; ends the process with status 2 and the reasons when they are wrong."""
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        for problem in error.errors(include_input=False, include_url=False):
            name = f"{prefix}{'_'.join(str(part) for part in problem['loc'])}".upper() if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            sys.stderr.write(f"{name}: {message}\n" if name else f"{message}\n")
        raise SystemExit(2) from None
