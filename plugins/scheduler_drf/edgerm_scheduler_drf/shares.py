"""Dominant shares as exact integers.

The dominant share of somebody who holds `a_j` of each resource `j`, of which the cluster has `t_j`, is
`max(a_j / t_j)`; fairness compares it divided by a weight `p/q`. Floats would make equal shares unequal
and fractions are slow, so all shares of one cluster are brought to one denominator:

    a_j / t_j / (p/q)  =  a_j * (T / t_j) * (q * P / p)  /  (T * P)

with `T` the least common multiple of all totals and `P` that of all numerators of weights. `T * P` is the
same for everybody, so the integers on its left compare as the shares do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Final

ShareKey = int | Fraction
"""Compares exactly as the weighted share does, among keys of one `Scale`."""

MAX_WEIGHT_BITS: Final = 512
"""Largest common multiple of the weights. Thousands of frameworks whose weights have nothing in common
would need integers of many kilobytes; beyond this, keys are fractions: as exact, but slower."""


class Scale:
    """The common denominator of all shares of one cluster.

    Parameters:
        totals: what the cluster has, by name in 1/1000; zero totals are skipped.
        exclude: names that fairness does not look at (Mesos's `fair_sharing_excluded_resource_names`).
        weights: every weight in use; a weight that is not named here must not be asked for.
    """

    def __init__(
        self, totals: Mapping[str, int], exclude: Iterable[str] = (), weights: Iterable[Fraction] = ()
    ) -> None:
        left_out = frozenset(exclude)
        counted = {name: total for name, total in totals.items() if total > 0 and name not in left_out}
        self._common = math.lcm(*counted.values()) if counted else 1
        self.multipliers: dict[str, int] = {name: self._common // t for name, t in counted.items()}
        numerators = math.lcm(*{weight.numerator for weight in weights})
        self._numerators = numerators if numerators.bit_length() <= MAX_WEIGHT_BITS else None

    def factor(self, weight: Fraction) -> ShareKey:
        """Return what a dominant amount is multiplied with to give its weighted `ShareKey`."""
        if self._numerators is None:
            return 1 / weight
        return weight.denominator * (self._numerators // weight.numerator)

    def dominant(self, amounts: Mapping[str, int]) -> tuple[int, str]:
        """Return the largest share as an integer on the common denominator, and the resource it is of.

        Nothing held (or nothing that counts) is `(0, "")`; the first name in the alphabet wins a tie.
        """
        best, dominant = 0, ""
        for name in sorted(amounts):
            scaled = amounts[name] * self.multipliers.get(name, 0)
            if scaled > best:
                best, dominant = scaled, name
        return best, dominant

    def largest(self, amounts: Mapping[str, int]) -> int:
        """Return the first part of `dominant`, without looking for the name."""
        multipliers = self.multipliers
        best = 0
        for name, milli in amounts.items():
            multiplier = multipliers.get(name)
            if multiplier is not None and milli * multiplier > best:
                best = milli * multiplier
        return best

    def fraction(self, dominant: int) -> Fraction:
        """Return the share that a dominant integer stands for, 0 to 1 (more if totals shrank)."""
        return Fraction(dominant, self._common)
