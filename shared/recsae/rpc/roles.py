"""Roles: what a principal may do, from least to most. Which RPC needs which role is the table here, and only here."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """Each role may do what those below it may."""

    VIEWER = 1
    """Reads: lists, explanations, previews, recommendations, activations."""
    OPERATOR = 2
    """Changes what can be undone at once: policies, kill switches, labels, runs."""
    ADMIN = 3
    """Everything: promotions, imports, policies outside their safe range."""

    def __str__(self) -> str:
        """As settings write it."""
        return self.name.lower()
