"""Settings of workers, beat and the exporter, from environment variables `RECSAE_WORKER_...`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from recsae.rpc.settings import Port, ServiceSettings
from recsae.sae.execution import Backend, Execution, Nomination


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

    def execution(self) -> Execution:
        """How SAE training runs; InvalidRequestError when the settings contradict each other."""
        return Execution(self.train_backend, self.train_nomination, self.train_device, self.train_threads)
