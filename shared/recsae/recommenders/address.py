"""Model addresses: `NAME` stands for a model's first hook, `NAME@HOOK` for another hook of it.

Each hook has its own SAE, dictionary, channels and runs, so the platform files all of those under the address.
"""

from __future__ import annotations

from typing import NamedTuple

_SEPARATOR = "@"


class Address(NamedTuple):
    """A model and one of its hooks; `hook` "" = the first."""

    model: str
    hook: str = ""

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.model}{_SEPARATOR}{self.hook}" if self.hook else self.model


def split_address(address: str) -> Address:
    """The model and hook of an address."""
    model, _, hook = address.partition(_SEPARATOR)
    return Address(model, hook)


def address_of(model: str, hook: str, first_hook: str) -> str:
    """The address of a hook of a model whose first hook is `first_hook`."""
    return str(Address(model, "" if hook == first_hook else hook))
