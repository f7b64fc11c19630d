"""Settings of workers, beat and the exporter, from environment variables `RECSAE_WORKER_...`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from recsae.rpc.settings import Port, ServiceSettings


class WorkerSettings(ServiceSettings):
    """What the worker reads besides what every service does; it serves no gRPC, so `host` and `port` are unused."""

    model_config = SettingsConfigDict(env_prefix="RECSAE_WORKER_", extra="ignore", frozen=True)

    metrics_port: Port = Field(default=9103, description="Port of the exporter's metrics endpoint; 0 = a free one.")
    state_url: str = Field(default="redis://127.0.0.1:6390/0", description="Redis or Valkey with records and leases.")
    bus_url: str = Field(default="redis://127.0.0.1:6391/0", description="Redis or Valkey the tasks travel over.")
    recommender: str = Field(default="127.0.0.1:50051", description="Address activations are read from.")
    lease_ttl_s: float = Field(
        default=15.0, ge=2, le=600, description="Seconds after which the step of a dead worker is free again."
    )
    sweep_every_s: float = Field(default=10.0, gt=0, description="Seconds between looks at all unfinished runs.")
    drift_every_s: float = Field(default=20.0, gt=0, description="Seconds between drift comparisons.")
    drift_window_s: float = Field(
        default=900.0, ge=60, le=7200, description="Seconds of live traffic compared with the reference."
    )
    train_threads: int = Field(default=0, ge=0, le=256, description="Threads of SAE training; 0 = every core.")
    checkpoint_every_s: float = Field(default=10.0, gt=0, description="Seconds between checkpoints of SAE training.")
