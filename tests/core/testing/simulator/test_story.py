"""The story: lines where they are wanted, and a digest that tells two runs apart."""

from __future__ import annotations

from edgerm_core.testing.simulator.story import Story


def test_lines_are_kept_only_if_wanted() -> None:
    quiet, told = Story(), Story(keep=True)
    for story in (quiet, told):
        story.tell(1.5, "a1", "starts")
    assert quiet.lines == []
    assert told.lines == ["     1.500  a1    starts"]


def test_the_digest_depends_on_what_when_and_where() -> None:
    def digest(now: float, who: str, data: bytes) -> str:
        story = Story()
        story.mark(now, who, data)
        return story.digest()

    assert digest(1.0, "a1", b"x") == digest(1.0, "a1", b"x")
    assert len({digest(1.0, "a1", b"x"), digest(2.0, "a1", b"x"), digest(1.0, "a2", b"x")}) == 3
    assert digest(1.0, "a1", b"x") != digest(1.0, "a1", b"y")
