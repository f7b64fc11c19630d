"""Settings of the recommender service, from environment variables `RECSAE_RECOMMENDER_...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from recsae.errors import FailedPreconditionError
from recsae.rpc.settings import CommaSeparated, Port, ServiceSettings
from recsae.steering.plans import DEFAULT_NORM_BUDGET


class RecommenderSettings(ServiceSettings):
    """What the recommender reads besides what every service does."""

    model_config = SettingsConfigDict(env_prefix="RECSAE_RECOMMENDER_", extra="ignore", frozen=True)

    port: Port = Field(default=50051, description="Port of the gRPC server; 0 = a free one.")
    metrics_port: Port = Field(default=9101, description="Port of the metrics endpoint; 0 = a free one.")
    models: Annotated[tuple[str, ...], NoDecode, CommaSeparated] = Field(
        default=(),
        validate_default=True,
        description="Models served, `name=version` separated by commas; the first one is the default.",
    )
    history: str = Field(
        default="",
        description="History store: `file:<folder>` or `redis://...`; empty = requests carry histories.",
        repr=False,  # may hold a password
    )
    histories: Annotated[tuple[str, ...], NoDecode, CommaSeparated] = Field(
        default=(),
        description="History stores of single models, `name=url` separated by commas; the others read `history`.",
        repr=False,
    )
    pseudonym_key_file: Path | None = Field(
        default=None,
        description="File with the key of the pseudonyms in artifacts; models that know users by id or read their "
        "attributes need it. Empty = no pseudonym is understood.",
    )
    interpreter: str = Field(
        default="127.0.0.1:50052", description="Address of the interpreter; empty = no steering and no observations."
    )
    observe_sample: float = Field(default=0.1, ge=0, le=1, description="Share of requests sampled for drift.")
    observe_buffer: int = Field(default=4096, ge=1, description="Sampled rows held at most; more are dropped.")
    exposures: str = Field(default="", description="Folder of the exposure log; empty = none is written.")
    exposure_sample: float = Field(default=0.1, ge=0, le=1, description="Share of responses logged as exposures.")
    exposure_retention_days: float = Field(
        default=7, gt=0, description="Days after which a segment of the exposure log is deleted."
    )
    exposure_buffer: int = Field(default=1024, ge=1, description="Exposures held at most; more are dropped.")
    plan_max_age_s: float = Field(
        default=600, gt=0, description="Age in seconds from which a plan the interpreter no longer confirms is unused."
    )
    steering: Literal["plan", "rpc"] = Field(
        default="plan",
        description="`plan` = plans applied in process; `rpc` = the interpreter's `Steer`, once a batch.",
    )
    steer_timeout_s: float = Field(default=0.05, gt=0, le=10, description="Most seconds for one call of `Steer`.")
    steer_norm_budget: float = Field(
        default=DEFAULT_NORM_BUDGET,
        gt=0,
        le=100,
        description="Largest change taken from `Steer`; the interpreter's own.",
    )
    kill_switch: bool = Field(default=False, description="True switches all steering off, here.")
    loop: Literal["auto", "thread"] = Field(
        default="auto",
        description="Where recommendations are computed: `auto` = where calls arrive, unless something in them may "
        "block or takes long; `thread` = in a thread of its own.",
    )
    max_batch: int = Field(default=32, ge=1, le=1024, description="Requests computed together at most.")
    batch_queue: int = Field(default=512, ge=1, description="Requests of a model waiting for it; more are shed.")
    processes: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that serve the port together, each with its own copy of the models; limits per "
        "principal (`principal_rate`, `principal_in_flight`) hold in each process, so all together allow that many "
        "times more.",
    )
    process: int | None = Field(
        default=None, ge=0, description="Set by the parent of several processes: which one this is."
    )
    threads_per_model: int = Field(default=1, ge=1, le=64, description="onnxruntime threads of a model's graphs.")

    @field_validator("pseudonym_key_file", mode="before")
    @classmethod
    def _empty_is_none(cls, path: object) -> object:
        return path or None

    @field_validator("models")
    @classmethod
    def _name_and_version(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for model in models:
            name, equals, version = model.partition("=")
            if not (name and equals and version):
                raise ValueError(f"{model!r} is not `name=version`, e.g. sasrec=0123456789abcdef")
        names = [model.partition("=")[0] for model in models]
        if len(set(names)) < len(names):
            raise ValueError(f"a model name comes twice in {', '.join(names)}; serve one version per name")
        if not models:
            raise ValueError("no model is named; set it to `name=version`, e.g. sasrec=0123456789abcdef")
        return models

    @model_validator(mode="after")
    def _one_of_the_processes(self) -> Self:
        if self.process is not None and self.process >= self.processes:
            raise ValueError(
                f"RECSAE_RECOMMENDER_PROCESS={self.process} is none of {self.processes} processes; leave it unset: the "
                "parent of several processes sets it"
            )
        return self

    @model_validator(mode="after")
    def _histories_of_models(self) -> Self:
        served = [name for name, _ in self.model_versions()]
        for history in self.histories:
            name, _, url = history.partition("=")
            if not url or name not in served:
                shown = f"{name!r} names" if url else "one is not `name=url` or names"  # a URL may hold a password
                raise ValueError(f"histories: {shown} no model out of {', '.join(served)}")
        return self

    def history_urls(self) -> list[str]:
        """URLs of every history store that is read."""
        return [url for name, _ in self.model_versions() if (url := self.history_of(name))]

    @property
    def shares_port(self) -> bool:
        """True in a process that serves its port together with others."""
        return self.process is not None

    def history_of(self, model: str) -> str:
        """URL of the history store of a model; empty = none."""
        return next(
            (url for name, _, url in (one.partition("=") for one in self.histories) if name == model), self.history
        )

    def pseudonym_key(self) -> bytes:
        """The key, empty without a file; FailedPreconditionError when the file cannot be read or is empty."""
        if self.pseudonym_key_file is None:
            return b""
        try:
            key = self.pseudonym_key_file.read_bytes()
        except OSError as error:
            raise FailedPreconditionError(f"pseudonym_key_file {self.pseudonym_key_file}: {error.strerror}") from error
        if not key:
            raise FailedPreconditionError(f"pseudonym_key_file {self.pseudonym_key_file} is empty; name the key's file")
        return key

    def model_versions(self) -> list[tuple[str, str]]:
        """(name, version) of each model, the default one first."""
        return [(name, version) for name, _, version in (model.partition("=") for model in self.models)]
