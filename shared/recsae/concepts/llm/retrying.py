"""When a call is worth trying again, and how long to wait before. Pure; nothing here waits."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from recsae.concepts.llm.transport import Outcome

# Busy, overloaded or broken for a moment; status 0 = no response at all.
_PASSING = frozenset({0, 408, 409, 425, 429, 500, 502, 503, 504, 529})
_FIRST_S, _LONGEST_S = 1.0, 60.0
# A server that asks for more than this is not coming back during a run.
_MOST_ASKED_S = 300.0


def passes_by(outcome: Outcome) -> bool:
    """True when the same call may work later."""
    return outcome.status in _PASSING


def wait_before(attempt: int, outcome: Outcome, jitter: float, now: float) -> float | None:
    """Seconds to wait before trying again after the `attempt`-th failure (from 1); None when it is not worth it.

    What the server asks for (Retry-After, seconds or a date) is kept to; otherwise the wait doubles from 1 s to 60 s
    and `jitter` in [0, 1) takes up to half of it away, so that callers do not come back all at once. `now` in seconds
    since the epoch.
    """
    asked = _asked(outcome.retry_after, now)
    if asked is None:
        return min(_LONGEST_S, _FIRST_S * 2.0 ** (attempt - 1)) * (1 - jitter / 2)
    return None if asked > _MOST_ASKED_S else float(asked)


def _asked(header: str, now: float) -> float | None:
    header = header.strip()
    if header.isdigit():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return max(0.0, (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now)
