"""What the operator decides about the master's state machine: plain numbers out of the config."""

from __future__ import annotations

import msgspec

from edgerm_core import limits
from edgerm_core.config import MasterConfig


class Settings(msgspec.Struct, frozen=True):
    """See `config.MasterConfig` for the meaning of each."""

    heartbeat_s: float = limits.HEARTBEAT_S
    heartbeat_constrained_s: float = limits.HEARTBEAT_CONSTRAINED_S
    lease_grace_s: float = limits.LEASE_GRACE_S
    recovery_grace_s: float = limits.RECOVERY_GRACE_S
    offer_timeout_s: float = limits.OFFER_TIMEOUT_S
    retain_terminal_tasks: int = limits.RETAIN_TERMINAL_TASKS

    @classmethod
    def of(cls, config: MasterConfig) -> Settings:
        """Return the settings that the config's `[master]` section makes."""
        return cls(
            **{field: getattr(config, field) for field in cls.__struct_fields__},
        )
