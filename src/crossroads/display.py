"""Shows results in notebooks."""

from __future__ import annotations

import importlib


class Shown:
    """A result that a notebook shows as a card."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        # By name, because cards are drawn in a layer above that of the results.
        card: str = importlib.import_module("crossroads.report.html.cards").card(self)
        return card
