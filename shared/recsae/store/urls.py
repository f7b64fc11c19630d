"""URLs of Redis servers hold passwords: whether one can be read, and how it is shown. Nothing is connected here."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from recsae.errors import InvalidRequestError

# Up to the last @, because a password that was not percent-encoded may hold one itself.
_CREDENTIALS = re.compile(r"(?<=://).*@", re.DOTALL)
_SCHEMES = ("redis://", "rediss://", "unix://")
_PARAMETERS = re.compile(r"(?<=[?&])(username|password)=[^&#]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """The URL to show: `***` in place of user name and password. Others come back as they are."""
    return _PARAMETERS.sub(r"\1=***", _CREDENTIALS.sub("***@", url))


def readable_url(url: str) -> str:
    """The URL itself; InvalidRequestError, without showing it, when it is none or host and port cannot be told apart.

    Asked before a client is made: its own error would quote a part of the password.
    """
    if not url.startswith(_SCHEMES):
        raise InvalidRequestError(
            f"the URL of a Redis server begins with none of {', '.join(_SCHEMES)}; write redis://HOST:PORT/DB"
        )
    try:
        urlsplit(url).port  # noqa: B018  # reads it
    except ValueError:
        raise InvalidRequestError(
            "the URL of a Redis server cannot be read; write redis://USER:PASSWORD@HOST:PORT/DB with each of "
            "# / ? @ : % in user name and password percent-encoded, e.g. %23 for #"
        ) from None
    return url
