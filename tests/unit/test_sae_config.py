"""Settings of SAE training: what contradicts itself, what defaults follow, how the rate moves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from recsae.errors import InvalidRequestError
from recsae.sae.config import SaeConfig
from recsae.sae.weights import SaeWeights

CONFIG = SaeConfig(d=24, width=96, k=4, epochs=3, batch_size=128, buffer_rows=512, learning_rate=3e-3)


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    rates = [CONFIG.learning_rate_at(step, 100) for step in range(100)]
    peak = rates.index(max(rates))
    assert 0 < peak < 50
    assert rates[peak] == CONFIG.learning_rate
    assert all(before < after for before, after in pairwise(rates[: peak + 1]))
    assert all(before >= after for before, after in pairwise(rates[peak:]))
    assert rates[-1] < 0.01 * CONFIG.learning_rate


@pytest.mark.parametrize(
    "values", [{"k": 97}, {"width": 0}, {"epochs": 0}, {"buffer_rows": 1}, {"variant": "gated"}, {"learning_rate": 0.0}]
)
def test_configurations_that_contradict_themselves_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        SaeConfig.from_dict({**CONFIG.as_dict(), **values})


def test_configurations_survive_the_round_trip_and_unknown_settings_do_not() -> None:
    assert SaeConfig.from_dict(CONFIG.as_dict()) == CONFIG
    with pytest.raises(InvalidRequestError, match="colour"):
        SaeConfig.from_dict({**CONFIG.as_dict(), "colour": "red"})


def test_defaults_follow_the_data() -> None:
    config = SaeConfig.defaults_for(64, 60_000)
    assert (config.width, config.k) == (256, 8)
    assert config.learning_rate == 4e-3
    assert SaeConfig.defaults_for(64, 60_000, k=16).learning_rate == 2e-3
    assert SaeConfig.defaults_for(256, 60_000, k=32).learning_rate == 1e-3
    assert config.epochs > SaeConfig.defaults_for(64, 10_000_000).epochs >= 1
    assert SaeConfig.defaults_for(64, 60_000, width=512, k=8, epochs=2).epochs == 2


def test_weights_of_the_wrong_shape_are_refused() -> None:
    unit = np.eye(3, dtype=np.float32)
    with pytest.raises(InvalidRequestError, match="b_dec"):
        SaeWeights(unit, np.zeros(3, np.float32), unit, np.zeros(4, np.float32), np.zeros(3, np.float32))


def test_training_on_is_gentler_and_otherwise_the_same() -> None:
    config = SaeConfig.defaults_for(64, 100_000, k=8)
    gentle = config.gentle()
    assert gentle.learning_rate == pytest.approx(config.learning_rate / 10)
    assert replace(gentle, learning_rate=config.learning_rate) == config
