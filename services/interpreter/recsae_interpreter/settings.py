"""Settings of the interpreter service, from environment variables `RECSAE_INTERPRETER_...`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from recsae.rpc.settings import Port, RedisUrl, ServiceSettings
from recsae.steering.plans import DEFAULT_NORM_BUDGET


class InterpreterSettings(ServiceSettings):
    """What the interpreter reads besides what every service does."""

    model_config = SettingsConfigDict(env_prefix="RECSAE_INTERPRETER_", extra="ignore", frozen=True)

    port: Port = Field(default=50052, description="Port of the gRPC server; 0 = a free one.")
    metrics_port: Port = Field(default=9102, description="Port of the metrics endpoint; 0 = a free one.")
    state_url: RedisUrl = Field(
        default="redis://127.0.0.1:6390/0", description="Server of policies, audit and channels."
    )
    state_replicas: int | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Replicas of that server that must have a policy, edit or promotion on disk before it is "
        "acknowledged; unset = one where one is connected, 0 = none.",
    )
    bus_url: RedisUrl = Field(default="redis://127.0.0.1:6391/0", description="Celery's broker.")
    recommenders: str = Field(
        default="127.0.0.1:50051",
        description="Address of the recommender; `address,model=address,...` where models have one of their own.",
    )
    recommender_timeout_s: float = Field(
        default=5, gt=0, le=120, description="Most seconds for one call to the recommender."
    )
    norm_budget: float = Field(
        default=DEFAULT_NORM_BUDGET, gt=0, le=100, description="Largest steering change, as a share of |activation|."
    )
    kill_switch: bool = Field(default=False, description="True switches all steering off, by the plans sent out.")
    flush_s: float = Field(default=5, gt=0, le=60, description="Seconds between two writes of drift counters.")
    plan_max_age_s: float = Field(
        default=600,
        gt=0,
        description="Seconds without an answer of the state server after which `Steer` steers nothing any more.",
    )
    state_max_age_s: float = Field(
        default=15,
        gt=0,
        description="Seconds without an answer of the state server after which plans are no longer confirmed.",
    )
