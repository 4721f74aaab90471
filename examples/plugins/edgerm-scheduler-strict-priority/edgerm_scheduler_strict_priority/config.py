"""The section `[scheduler.strict-priority]`."""

from __future__ import annotations

import msgspec

MAX_PRIORITY = 1_000_000


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[scheduler.strict-priority]`.

    Attributes:
        roles: priority by role, larger first; what is not listed has that of its parent, else 0.
        ageing_s: a waiting task gains one after so many seconds, and again; 0: never.
        max_decisions: of one call; the master calls again while there are any, and does other work
            in between.
    """

    roles: dict[str, int] = {}
    ageing_s: float = 60.0
    max_decisions: int = 1000

    def __post_init__(self) -> None:
        if not all(abs(priority) <= MAX_PRIORITY for priority in self.roles.values()):
            raise ValueError(f"roles: priorities must be -{MAX_PRIORITY} to {MAX_PRIORITY}")
        if not 0 <= self.ageing_s <= 86_400:
            raise ValueError("ageing_s must be 0 to 86400")
        if not 1 <= self.max_decisions <= 10_000:
            raise ValueError("max_decisions must be 1 to 10000")

    def priority_of(self, role: str) -> int:
        """Return the priority of a role: its own, or that of the nearest parent that has one."""
        while role:
            if role in self.roles:
                return self.roles[role]
            role = role.rpartition("/")[0]
        return 0
