"""Redis URLs are shown without their password, and one that cannot be read is refused without showing it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recsae.errors import InvalidRequestError
from recsae.pipeline.celery_queue import CeleryTaskQueue
from recsae.store.histories_redis import RedisHistoryStore
from recsae.store.redis import connect
from recsae.store.urls import readable_url, without_password

MARKER = "marker-0123456789"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6390/0", "redis://127.0.0.1:6390/0"),
        (f"redis://:{MARKER}@h:1/0", "redis://***@h:1/0"),
        (f"rediss://user:{MARKER}@h:1/0?ssl_cert_reqs=none", "rediss://***@h:1/0?ssl_cert_reqs=none"),
        (f"redis://user:p@ss/{MARKER}@h:1/0", "redis://***@h:1/0"),
        (f"redis://h:1/0?db=2&password={MARKER}&username=u", "redis://h:1/0?db=2&password=***&username=***"),
        (f"unix://user:{MARKER}@/run/redis.sock?db=1", "unix://***@/run/redis.sock?db=1"),
        ("file:/var/lib/histories", "file:/var/lib/histories"),
    ],
)
def test_a_url_is_shown_without_user_name_and_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("make", [readable_url, connect, RedisHistoryStore, CeleryTaskQueue.connect])
@pytest.mark.parametrize(
    "url", [f"redis://user:pa#{MARKER}@h:1/0", f"redis://:{MARKER}@h:{MARKER}/0"], ids=["password", "port"]
)
def test_an_unreadable_url_is_refused_without_showing_any_of_it(make: Callable[[str], object], url: str) -> None:
    with pytest.raises(InvalidRequestError, match="percent-encoded") as refused:
        make(url)
    assert MARKER not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("make", [readable_url, connect, RedisHistoryStore, CeleryTaskQueue.connect])
@pytest.mark.parametrize("url", [f"{MARKER}", f"h:6390/{MARKER}", f"http://{MARKER}@h:1/0", ""])
def test_what_is_no_url_of_a_redis_server_is_refused_with_the_form(make: Callable[[str], object], url: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"write redis://HOST:PORT/DB") as refused:
        make(url)
    assert MARKER not in str(refused.value)
