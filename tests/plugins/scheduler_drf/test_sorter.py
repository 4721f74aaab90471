"""The tree of roles: order by definition, exact shares, and serving many times in a row."""

from fractions import Fraction

from edgerm_scheduler_drf.sorter import Path, Sorter
from hypothesis import given, settings
from hypothesis import strategies as st

from .cases import load_reference

REFERENCE = load_reference()
PATHS = st.sampled_from(["a", "b", "a/c", "a/c/d", "b/e", "f", "f/g"])
AMOUNTS = st.dictionaries(st.sampled_from(["cpus", "mem", "disk"]), st.integers(0, 5), max_size=3)


def to_path(text: str) -> Path:
    return tuple(text.split("/"))


@settings(max_examples=200, deadline=None)
@given(
    totals=st.dictionaries(st.sampled_from(["cpus", "mem"]), st.integers(0, 9), max_size=2),
    clients=st.dictionaries(PATHS, AMOUNTS, min_size=1),
    weights=st.dictionaries(PATHS, st.fractions(Fraction(1, 10), 10, max_denominator=12)),
    late=PATHS,
)
def test_the_order_is_that_of_the_definition(
    totals: dict[str, int],
    clients: dict[str, dict[str, int]],
    weights: dict[str, Fraction],
    late: str,
) -> None:
    reference, sorter = REFERENCE.Sorter(), Sorter()
    reference.agents["agent"] = {"shared": {}, "all": {k: Fraction(v) for k, v in totals.items()}}
    reference.weights = dict(weights)
    sorter.set_totals(totals)
    for name, amounts in clients.items():
        reference.add(name)
        reference.clients[name]["active"] = True
        reference.allocate(name, "agent", {k: Fraction(v) for k, v in amounts.items()})
        sorter.put(to_path(name), amounts, 1)
    for name, weight in weights.items():
        sorter.set_weight(to_path(name), weight)
    assert ["/".join(p) for p in sorter.order()] == reference.sort()
    if late in clients and len(clients) > 1:
        sorter.remove(to_path(late))
        assert to_path(late) not in sorter
        assert sorted(sorter.order()) == sorted(to_path(name) for name in clients if name != late)


def test_equal_shares_are_equal_however_they_came_about() -> None:
    """A third is a third: floats would order these by rounding errors."""
    sorter = Sorter()
    sorter.set_totals({"cpus": 3000, "mem": 7000, "disk": 21000})
    sorter.put(("a",), {"mem": 7}, 5)
    sorter.put(("b",), {"disk": 21}, 4)
    sorter.put(("c",), {"cpus": 3}, 3)
    assert list(sorter.order()) == [("c",), ("b",), ("a",)]


def test_charging_keeps_the_order_up_to_date() -> None:
    sorter = Sorter()
    sorter.set_totals({"cpus": 100})
    sorter.set_weight(("lab",), Fraction(2))
    clients: list[Path] = [("lab", "f1"), ("lab", "f2"), ("ops", "f3")]
    for path in clients:
        sorter.put(path, {}, 0)
    sorter.start(clients)
    served: list[str] = []
    for _ in range(12):
        client = sorter.lowest()
        assert client is not None
        served.append(client[-1])
        sorter.charge(client, {"cpus": 1})
    assert {name: served.count(name) for name in ("f1", "f2", "f3")} == {"f1": 4, "f2": 4, "f3": 4}
    last = sorter.lowest()
    assert last is not None
    sorter.retire(last)
    assert sorter.lowest() != last


def test_weights_without_a_common_measure_stay_exact() -> None:
    sorter = Sorter()
    sorter.set_totals({"cpus": 10**9})
    primes = [n for n in range(10_000, 11_500) if all(n % d for d in range(2, 110))]
    for prime in primes:
        sorter.put((str(prime),), {"cpus": prime}, 0)
        sorter.set_weight((str(prime),), Fraction(prime, 1000))
    assert list(sorter.order()) == sorted((str(prime),) for prime in primes)


def test_shares_of_a_cluster_without_totals_are_zero() -> None:
    sorter = Sorter(exclude=["mem"])
    sorter.put(("a",), {"cpus": 5, "mem": 7}, 0)
    assert sorter.share(("a",)) == (Fraction(0), "")
    sorter.set_totals({"cpus": 10, "mem": 7})
    assert sorter.share(("a",)) == (Fraction(1, 2), "cpus")
