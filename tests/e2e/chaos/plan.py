"""Which fault strikes whom and when: made of a seed, and of nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import msgspec

OPERATOR: Final = "operator"
SEESAW_S: Final = 4.0
"""How long one agent of a pair is cut off, and then the other: what went over comes back at once, to where
the run that was given up is still ending."""

SEESAW_PAUSE_S: Final = 5.0

PAUSE_S: Final[dict[str, float]] = {
    "master": 6.0,
    "agent": 7.0,
    "framework": 9.0,
    "agent link": 9.0,
    "framework link": 14.0,
    OPERATOR: 12.0,
}
"""Mean time between two faults of one victim; short ones are frequent, long ones are not rare."""

FAULTS: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "master": {"kill": (6, 2.5), "end": (1, 1.0), "hang": (3, 4.0)},
    "agent": {
        "kill": (5, 5.0),
        "kill in a start": (4, 1.0),
        "kill both in a start": (2, 1.0),
        "end": (1, 2.0),
        "hang": (3, 7.0),
        "kill keeper": (2, 0.0),
        "reboot": (3, 4.0),
    },
    "framework": {"kill": (1, 3.0)},
    "agent link": {"both": (3, 12.0), "to-master": (2, 8.0), "from-master": (2, 8.0)},
    "framework link": {"both": (3, 8.0), "to-master": (1, 6.0), "from-master": (1, 6.0)},
    OPERATOR: {"drain": (1, 6.0)},
}
"""By sort of victim and kind of fault: how often, compared with the others, and how long at most."""


class Fault(msgspec.Struct, frozen=True):
    """One fault.

    Attributes:
        at_s: when, in seconds after the beginning.
        victim: a daemon's name.
        kind: as in `FAULTS`.
        for_s: how long it lasts before the victim is put right.
        part: a random number in [0, 1), for what else the fault has to decide.
        link: whether it strikes the victim's link instead of the victim.
    """

    at_s: float
    victim: str
    kind: str
    for_s: float
    part: float
    link: bool = False

    def __str__(self) -> str:
        what = f"cut {self.kind}" if self.link else self.kind
        return f"{self.victim}: {what} for {self.for_s:.1f} s"


def make_plan(
    seed: int, seconds: float, agents: Sequence[str], frameworks: Sequence[str], mortal: Sequence[str]
) -> list[list[Fault]]:
    """Return the faults that strike each victim one after the other.

    Parameters:
        seconds: all faults are over by then.
        mortal: the frameworks that may be killed; they know how to go on.
    """
    lanes = [("master", "master", False), *((name, "agent", False) for name in agents)]
    lanes += [(name, "framework", False) for name in mortal]
    lanes += [(name, "agent link", True) for name in agents]
    lanes += [(name, "framework link", True) for name in frameworks]
    lanes.append((OPERATOR, OPERATOR, False))
    plan = [
        _lane(random.Random(f"{seed} {name} {link}"), seconds, name, sort, link, agents)
        for name, sort, link in lanes
    ]
    return [*plan, _seesaw(random.Random(f"{seed} seesaw"), seconds, agents)]


def _seesaw(rng: random.Random, seconds: float, agents: Sequence[str]) -> list[Fault]:
    faults: list[Fault] = []
    at_s = rng.expovariate(1 / SEESAW_PAUSE_S)
    while at_s + 2 * SEESAW_S <= seconds:
        number = rng.randrange(len(agents))
        # Every second agent is of the same pair, and nobody else is: see `PAIRS` of the workload.
        for victim in (agents[number], agents[(number + 2) % len(agents)]):
            faults.append(Fault(at_s, victim, "both", SEESAW_S, rng.random(), link=True))
            at_s += SEESAW_S
        at_s += rng.expovariate(1 / SEESAW_PAUSE_S)
    return faults


def _lane(
    rng: random.Random, seconds: float, name: str, sort: str, link: bool, agents: Sequence[str]
) -> list[Fault]:
    faults: list[Fault] = []
    at_s = rng.expovariate(1 / PAUSE_S[sort])
    kinds = FAULTS[sort]
    while True:
        kind = rng.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        # Squared: most are short, so that much happens, and some are long enough for every patience.
        for_s = kinds[kind][1] * rng.random() ** 2
        if at_s + for_s > seconds:
            return faults
        victim = rng.choice(agents) if name == OPERATOR else name
        faults.append(Fault(at_s, victim, kind, for_s, rng.random(), link))
        at_s += for_s + rng.expovariate(1 / PAUSE_S[sort])
