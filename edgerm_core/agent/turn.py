"""What the parts of the agent's state machine share while one event is handled."""

from __future__ import annotations

from edgerm_core.agent.deadlines import Deadlines
from edgerm_core.agent.effects import Effect


class Turn:
    """The present moment, the effects collected so far, and what is due when.

    Attributes:
        now: seconds; never goes backwards.
        effects: of the event being handled, in order.
        deadlines: everything that has to happen by itself later.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.effects: list[Effect] = []
        self.deadlines = Deadlines()

    def emit(self, effect: Effect) -> None:
        """Add an effect."""
        self.effects.append(effect)
