from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agent.deadlines import COMPACT_SLACK, Deadlines, Key

KEYS = st.integers(0, 4).map(lambda n: ("k", n, 0))
OPERATIONS = st.one_of(
    st.tuples(st.just("set"), KEYS, st.integers(0, 20)),
    st.tuples(st.just("cancel"), KEYS, st.just(0)),
    st.tuples(st.just("pop"), KEYS, st.integers(0, 20)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPERATIONS, max_size=40))
def test_it_behaves_like_a_dict_that_is_sorted_each_time(operations: list[tuple[str, Key, int]]) -> None:
    deadlines, model = Deadlines(), dict[Key, int]()
    for name, key, at in operations:
        if name == "set":
            deadlines.set(key, at)
            model[key] = at
        elif name == "cancel":
            deadlines.cancel(key)
            model.pop(key, None)
        else:
            popped = list(deadlines.pop_due(at))
            assert sorted(popped) == sorted(each for each, due in model.items() if due <= at)
            times = [model.pop(each) for each in popped]
            assert times == sorted(times)
        assert deadlines.next() == min(model.values(), default=None)
        assert len(deadlines) == len(model)


def test_cancelled_and_moved_deadlines_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for n in range(10 * COMPACT_SLACK):
        deadlines.set(("k", 1, 0), float(n))
    assert len(deadlines._heap) <= COMPACT_SLACK + 3
