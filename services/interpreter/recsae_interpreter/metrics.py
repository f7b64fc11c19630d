"""What the interpreter counts besides its calls. No label carries a user, an item or a concept."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class InterpreterMetrics:
    """Registers the metrics; a registry takes them once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Every series starts at 0."""
        self.triples_loaded = Gauge(
            "recsae_triples_loaded", "Triples held in memory, by model.", ("model",), registry=registry
        )
        self.triples_failed = Gauge(
            "recsae_triples_failed",
            "Promoted triples that could not be loaded, so that the one before stays; by model.",
            ("model",),
            registry=registry,
        )
        self.plan_revision = Gauge(
            "recsae_plan_compiled_revision", "Revision of the state the plans sent out are compiled from.",
            registry=registry,
        )  # fmt: skip
        self.state_age = Gauge(
            "recsae_state_age_seconds", "Time since the state server last answered.", registry=registry
        )
        self.policies = Gauge("recsae_policies", "Policies by model and state.", ("model", "state"), registry=registry)
        self.kill_switch = Gauge(
            "recsae_kill_switch",
            "1 while all steering of a model is switched off, by a kill switch or the settings.",
            ("model",),
            registry=registry,
        )
        self.watchers = Gauge("recsae_plan_watchers", "Open plan streams, by model.", ("model",), registry=registry)
        self.explained = Counter(
            "recsae_explain",
            'Explanations, by model and whether the activation could be explained ("yes", "refused").',
            ("model", "explainable"),
            registry=registry,
        )
        self.observed = Counter(
            "recsae_observe_rows",
            'Sampled activation rows that arrived, by model and outcome ("counted", "repeated", "unknown_version").',
            ("model", "outcome"),
            registry=registry,
        )
        self.observe_lost = Counter(
            "recsae_observe_lost_rows", "Counted rows dropped because panes could not be written.", registry=registry
        )
        self.steered = Counter(
            "recsae_steer_rows",
            'Rows answered by the Steer call, by model and by why they were not steered ("steered" when they were).',
            ("model", "reason"),
            registry=registry,
        )
