"""Shares as integers compare exactly as the fractions they stand for."""

from __future__ import annotations

import math
from fractions import Fraction

from edgerm_scheduler_drf.shares import MAX_WEIGHT_BITS, Scale, ShareKey
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ["cpus", "mem", "disk", "device/camera"]
TOTALS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10**15), max_size=4)
AMOUNTS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10**15), max_size=4)
WEIGHTS = st.fractions(Fraction(1, 1000), 1_000_000, max_denominator=1000)
CLIENTS = st.lists(st.tuples(AMOUNTS, WEIGHTS), min_size=2, max_size=5)


def true_share(amounts: dict[str, int], totals: dict[str, int]) -> Fraction:
    """The dominant share by its definition."""
    return max(
        (Fraction(milli, totals[name]) for name, milli in amounts.items() if totals.get(name)),
        default=Fraction(0),
    )


@settings(max_examples=200, deadline=None)
@given(totals=TOTALS, clients=CLIENTS)
def test_keys_order_clients_as_the_weighted_shares_do(
    totals: dict[str, int], clients: list[tuple[dict[str, int], Fraction]]
) -> None:
    scale = Scale(totals, weights=[weight for _, weight in clients])
    found: list[tuple[ShareKey, Fraction]] = []
    for amounts, weight in clients:
        dominant, name = scale.dominant(amounts)
        share = true_share(amounts, totals)
        assert scale.fraction(dominant) == share
        assert scale.largest(amounts) == dominant
        if name:
            assert Fraction(amounts[name], totals[name]) == share
        else:
            assert share == 0
        found.append((dominant * scale.factor(weight), share / weight))
    for key, truth in found:
        for other_key, other_truth in found:
            assert (key < other_key) == (truth < other_truth)
            assert (key == other_key) == (truth == other_truth)


def test_the_numbers_of_the_paper() -> None:
    """Ghodsi et al., NSDI 2011, section 4.1: A runs three tasks of <1, 4>, B two of <3, 1>."""
    scale = Scale({"cpus": 9_000, "mem": 18_000})
    dominant_a, name_a = scale.dominant({"cpus": 3_000, "mem": 12_000})
    dominant_b, name_b = scale.dominant({"cpus": 6_000, "mem": 2_000})
    assert (scale.fraction(dominant_a), name_a) == (Fraction(2, 3), "mem")
    assert (scale.fraction(dominant_b), name_b) == (Fraction(2, 3), "cpus")
    assert dominant_a == dominant_b


def test_first_name_in_the_alphabet_wins_a_tie() -> None:
    scale = Scale({"mem": 10, "cpus": 20})
    assert scale.dominant({"mem": 5, "cpus": 10})[1] == "cpus"


def test_what_is_excluded_or_unknown_or_zero_in_total_does_not_count() -> None:
    scale = Scale({"cpus": 10, "mem": 10, "disk": 0}, exclude=["mem"])
    assert scale.dominant({"mem": 10, "disk": 7, "gpu": 3}) == (0, "")
    assert scale.largest({"mem": 10, "disk": 7, "gpu": 3}) == 0
    assert scale.dominant({"mem": 10, "cpus": 1})[1] == "cpus"


def test_share_of_a_cluster_that_shrank_exceeds_one() -> None:
    scale = Scale({"cpus": 4})
    assert scale.fraction(scale.largest({"cpus": 6})) == Fraction(3, 2)


def test_double_weight_at_double_amount_is_the_same_key() -> None:
    scale = Scale({"cpus": 7}, weights=[Fraction(1), Fraction(2), Fraction(1, 3)])
    three = scale.largest({"cpus": 3}) * scale.factor(Fraction(1))
    assert scale.largest({"cpus": 6}) * scale.factor(Fraction(2)) == three
    assert scale.largest({"cpus": 1}) * scale.factor(Fraction(1, 3)) == three
    assert isinstance(three, int)


def test_weights_without_a_usable_common_multiple_become_fractions() -> None:
    primes = [n for n in range(1_000, 2_000) if all(n % d for d in range(2, 45))]
    assert math.prod(primes).bit_length() > MAX_WEIGHT_BITS
    scale = Scale({"cpus": 1_000}, weights=map(Fraction, primes))
    keys = [scale.largest({"cpus": prime}) * scale.factor(Fraction(prime)) for prime in primes]
    assert set(keys) == {Fraction(1)}
