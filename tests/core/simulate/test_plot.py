from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from edgerm_core.simulate.plot import _nice, draw

NAMESPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def figures(run: Any) -> dict[str, Any]:
    cluster = (
        '[[agents]]\nname = "node"\ncount = 3\n[[outage]]\nagents = ["node-2"]\nfrom_s = 20\nfor_s = 30\n'
    )
    figures: dict[str, Any] = run(cluster)[1]
    return figures


def test_the_drawing_is_well_formed_and_stays_on_its_paper(figures: dict[str, Any]) -> None:
    root = ElementTree.fromstring(draw(figures, html=False))
    width, high = (float(root.attrib[name]) for name in ("width", "height"))
    for rect in root.iter(f"{NAMESPACE}rect"):
        x, y = float(rect.get("x", 0)), float(rect.get("y", 0))
        assert x >= 0
        assert float(rect.attrib["width"]) + 0.01 > 0
        assert x + float(rect.attrib["width"]) <= width
        assert y + float(rect.attrib["height"]) <= high
    for path in root.iter(f"{NAMESPACE}path"):
        assert re.fullmatch(r"M[\d.]+ [\d.]+([HV][\d.]+)*", path.attrib["d"])


def test_it_names_everybody_and_frames_the_outage(figures: dict[str, Any]) -> None:
    root = ElementTree.fromstring(draw(figures, html=False))
    texts = {text.text for text in root.iter(f"{NAMESPACE}text")}
    assert {"node-1", "node-2", "node-3", "lab (weight 1)"} <= texts
    frames = [rect for rect in root.iter(f"{NAMESPACE}rect") if rect.get("stroke-width")]
    assert len(frames) == 1


def test_the_page_needs_nothing_from_anywhere(figures: dict[str, Any]) -> None:
    page = draw(figures, html=True)
    assert "<svg" in page
    assert "FRAMEWORK" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=|url\(|@import", page)


def test_what_people_wrote_cannot_become_markup(figures: dict[str, Any]) -> None:
    figures["scheduler"] = "<script>alert(1)</script>"
    for html in (True, False):
        assert "<script" not in draw(figures, html=html)


def test_nothing_to_draw_makes_an_empty_drawing(run: Any) -> None:
    """No submission comes before the end."""
    workload = (
        'until_s = 10\n[[framework]]\nname = "f"\n[[framework.submission]]\nat_s = 100\n'
        'task = { name = "t", implementation = [{ executor = "process" }] }\n'
    )
    _, figures = run(workload=workload)
    assert figures["tasks"]["submitted"] == 0
    ElementTree.fromstring(draw(figures, html=False))


@pytest.mark.parametrize(("value", "nice"), [(0, 2), (2, 2), (3, 4), (10, 10), (11, 20), (570, 1000)])
def test_axes_end_at_round_numbers(value: float, nice: int) -> None:
    assert _nice(value) == nice
