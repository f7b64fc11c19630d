"""Settings of workers, beat and the exporter, from environment variables `RECSAE_WORKER_...`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from recsae.concepts.llm.options import LlmOptions
from recsae.errors import InvalidRequestError
from recsae.rpc.settings import Port, RedisUrl, ServiceSettings
from recsae.sae.execution import Backend, Execution, Nomination


class WorkerSettings(ServiceSettings):
    """What the worker reads besides what every service does; it serves no gRPC, so `host` and `port` are unused."""

    model_config = SettingsConfigDict(env_prefix="RECSAE_WORKER_", extra="ignore", frozen=True)

    metrics_port: Port = Field(default=9103, description="Port of the exporter's metrics endpoint; 0 = a free one.")
    state_url: RedisUrl = Field(
        default="redis://127.0.0.1:6390/0", description="Redis or Valkey with records and leases."
    )
    bus_url: RedisUrl = Field(default="redis://127.0.0.1:6391/0", description="Redis or Valkey the tasks travel over.")
    recommender: str = Field(
        default="127.0.0.1:50051",
        description="Address activations are read from; `address,model=address,...` where models have their own.",
    )
    lease_ttl_s: float = Field(
        default=15.0, ge=2, le=600, description="Seconds after which the step of a dead worker is free again."
    )
    sweep_every_s: float = Field(default=10.0, gt=0, description="Seconds between looks at all unfinished runs.")
    drift_every_s: float = Field(default=20.0, gt=0, description="Seconds between drift comparisons.")
    drift_window_s: float = Field(
        default=900.0, ge=60, le=7200, description="Seconds of live traffic compared with the reference."
    )
    audit_keep: int = Field(
        default=100_000, ge=1000, description="Newest audit events kept in Redis; older ones go to the artifact store."
    )
    audit_keep_days: float = Field(
        default=0.0, ge=0, le=36_500, description="Days after which an audit event is archived in any case; 0 = never."
    )
    audit_every_s: float = Field(default=300.0, gt=0, description="Seconds between looks for events to archive.")
    train_backend: Backend = Field(
        default="auto", description="Engine of SAE training: torch, or fast (numba, CPU); auto takes the fastest here."
    )
    train_nomination: Nomination = Field(
        default="exact", description="Precision latents are nominated in: exact, int8 (fast) or bf16 (torch)."
    )
    train_device: str = Field(default="cpu", description="Device of SAE training, as torch names it: cpu, cuda.")
    train_threads: int = Field(
        default=0, ge=0, le=256, description="Threads of one training process; 0 = all cores, shared out."
    )
    train_processes: int = Field(
        default=1, ge=1, le=64, description="Processes that train one SAE together on this machine."
    )
    checkpoint_every_s: float = Field(default=10.0, gt=0, description="Seconds between checkpoints of SAE training.")
    llm_url: str = Field(
        default="",
        description="Base URL (.../v1) of an OpenAI-compatible chat endpoint, asked about concepts when a refresh says "
        "so; empty = off. It is sent item titles of histories and strengths, and no id of a person or an item.",
    )
    llm_model: str = Field(default="", description="Model the endpoint is asked for.")
    llm_api_key: SecretStr | None = Field(default=None, description="Bearer key of the endpoint.")
    llm_concurrency: int = Field(default=4, ge=1, le=64, description="Calls to the endpoint in flight at once.")
    llm_timeout_s: float = Field(default=60.0, gt=0, le=3600, description="Deadline of one call.")
    llm_retries: int = Field(default=4, ge=0, le=20, description="Times a call is tried again.")
    llm_price_in: float = Field(default=0.0, ge=0, description="Price of a million tokens the model reads.")
    llm_price_out: float = Field(default=0.0, ge=0, description="Price of a million tokens the model writes.")
    llm_max_cost: float = Field(default=5.0, ge=0, description="Most a run may cost, in the currency of the prices.")
    llm_max_tokens: int = Field(default=5_000_000, ge=1, description="Most tokens of a run, in and out together.")
    llm_answer_tokens: int = Field(default=300, ge=1, le=100_000, description="Most tokens of a description.")
    llm_rating_tokens: int = Field(
        default=32, ge=1, le=100_000, description="Most tokens of a rating; more for a model that thinks aloud."
    )
    llm_cache: str = Field(
        default="", description="URL answers are kept below; empty = llm-answers in the artifact store."
    )

    @model_validator(mode="after")
    def _llm_agrees(self) -> Self:
        try:
            self.llm()
        except InvalidRequestError as error:
            raise ValueError(str(error)) from error
        return self

    def llm(self) -> LlmOptions | None:
        """The language model's endpoint; None when there is none."""
        if not self.llm_url:
            return None
        return LlmOptions(
            url=self.llm_url,
            model=self.llm_model,
            api_key=self.llm_api_key.get_secret_value() if self.llm_api_key else "",
            concurrency=self.llm_concurrency,
            timeout_s=self.llm_timeout_s,
            retries=self.llm_retries,
            price_in=self.llm_price_in,
            price_out=self.llm_price_out,
            max_cost=self.llm_max_cost,
            max_tokens=self.llm_max_tokens,
            answer_tokens=self.llm_answer_tokens,
            rating_tokens=self.llm_rating_tokens,
        )

    def execution(self) -> Execution:
        """How SAE training runs; InvalidRequestError when the settings contradict each other."""
        return Execution(self.train_backend, self.train_nomination, self.train_device, self.train_threads)
