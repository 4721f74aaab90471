"""The figures as drawings: one SVG, alone or in an HTML page with the tables. Nothing is loaded from
anywhere and nothing has to run."""

from __future__ import annotations

import html as markup
import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from edgerm_core.simulate.report import Row, duration, headline, size, tables

WIDTH: Final = 1040
LEFT: Final = 130
RIGHT: Final = 760
"""Where the axis of time begins and ends; names stand left of it, legends and bars right."""

CHART: Final = 150
ROW: Final = 14
GAP: Final = 62

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#8c510a")
"""Okabe and Ito's: told apart by colour-blind people, too."""

HEAT: Final = ("#f1f4f6", "#c9dff0", "#94c1e2", "#5a9fd0", "#2474b5", "#0b4a85")
"""Idle to full."""

AWAY: Final = "#d9d2cc"
OUTAGE: Final = "#f6d9d3"
MAX_ROWS: Final = 200
"""Agents that are drawn one by one; the rest is in the figures."""

STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#222}"
    ".s{font-size:10px;fill:#555}.h{font-size:14px;font-weight:600}"
    ".e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#ddd}.l{fill:none;stroke-width:1.8}"
)

NICE_TIMES_S: Final = (
    *(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400),
    *(172_800, 604_800, 1_209_600, 2_592_000, 7_776_000),
)


def draw(figures: Row, *, html: bool) -> str:
    """Return the drawing as SVG, or as an HTML page."""
    drawing = _Drawing(figures)
    svg = drawing.svg()
    if not html:
        return svg
    text = markup.escape(tables(figures, every_agent=True))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>edgerm simulate</title>\n'
        "<style>body{margin:2em auto;max-width:1080px;font-family:system-ui,sans-serif;color:#222}"
        "pre{font-size:12px;overflow-x:auto;background:#f6f7f8;padding:1em}svg{max-width:100%;height:auto}"
        f"</style></head><body>\n<h1>edgerm simulate</h1>\n{svg}\n<pre>{text}</pre>\n</body></html>\n"
    )


Lines = dict[str, list[float]]
"""Names to values, one for each stretch of time."""


class _Drawing:
    """Charts below each other on one axis of time."""

    def __init__(self, figures: Row) -> None:
        self.figures = figures
        self.times: list[float] = figures["samples"]["at_s"]
        self.end_s = max(figures["simulated_s"], 1e-9)
        self.parts: list[str] = []
        self.y = 0

    def svg(self) -> str:
        """Return all of it."""
        self._text(10, 24, headline(self.figures), "h")
        self.y = 66
        series = self.figures["samples"]["frameworks"]
        self._chart(
            "dominant share of each framework",
            {name: each["share"] for name, each in series.items()},
            top=max(1.0, *(max(each["share"], default=0.0) for each in series.values())),
            label=lambda value: f"{value * 100:.0f}%",
        )
        for title, key in (("tasks placed", "placed"), ("tasks that wait for a placement", "waiting")):
            counts = {name: each[key] for name, each in series.items()}
            top = _nice(max(max(each, default=0) for each in counts.values()))
            self._chart(title, counts, top=top, label=lambda value: f"{value:.0f}")
        self._agents()
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.y}" width="{WIDTH}" '
            f'height="{self.y}" role="img"><style>{STYLE}</style>'
            f'<rect width="{WIDTH}" height="{self.y}" fill="#fff"/>\n{body}\n</svg>'
        )

    # --- charts -------------------------------------------------------------------------------

    def _chart(self, title: str, lines: Lines, top: float, label: Callable[[float], str]) -> None:
        y, bottom = self.y, self.y + CHART
        self._text(LEFT, y - 8, title, "h")
        for outage in self.figures["outages"]:
            self._band(outage, y, CHART)
        for part in (0.0, 0.5, 1.0):
            at = bottom - part * CHART
            self.parts.append(f'<line class="g" x1="{LEFT}" x2="{RIGHT}" y1="{at:g}" y2="{at:g}"/>')
            self._text(LEFT - 6, at + 4, label(part * top), "s e")
        for index, (name, values) in enumerate(lines.items()):
            colour = COLOURS[index % len(COLOURS)]
            self.parts.append(f'<path class="l" stroke="{colour}" d="{self._path(values, top, bottom)}"/>')
            legend = y + 10 + 16 * index
            if legend < bottom + 16:
                self.parts.append(
                    f'<rect x="{RIGHT + 16}" y="{legend - 8}" width="14" height="4" fill="{colour}"/>'
                )
                weight = self.figures["frameworks"][index]["weight"]
                self._text(RIGHT + 36, legend, f"{name} (weight {weight:g})")
        self._time_axis(bottom)
        self.y = bottom + GAP

    def _path(self, values: Sequence[float], top: float, bottom: float) -> str:
        """Return a line of steps, one for each stretch of equal values."""
        pieces: list[str] = []
        begins, last = 0.0, None
        for at_s, value in zip(self.times, values, strict=True):
            if value != last:
                y = f"{bottom - value / top * CHART:.1f}"
                x = f"{self._x(begins):.1f}"
                pieces.append(f"H{x}V{y}" if pieces else f"M{x} {y}")
                last = value
            begins = at_s
        return "".join([*pieces, f"H{RIGHT}"]) if pieces else f"M{LEFT} {bottom}"

    def _agents(self) -> None:
        rows = self.figures["agents"][:MAX_ROWS]
        series = self.figures["samples"]["agents"]
        self._text(LEFT, self.y - 8, "how busy each agent is", "h")
        self._legend(self.y - 8)
        self._text(RIGHT + 16, self.y - 8, "bytes up, down", "h")
        most = max((max(row["bytes_up"], row["bytes_down"]) for row in rows), default=0) or 1
        for row in rows:
            name = row["name"]
            self._text(LEFT - 6, self.y + 10, name, "s e")
            self._strip(series[name]["busy"], series[name]["away"])
            for outage in self.figures["outages"]:
                if name in outage["agents"]:
                    self._frame(outage)
            for offset, key, colour in ((1, "bytes_up", COLOURS[0]), (7, "bytes_down", COLOURS[4])):
                long = row[key] / most * 120
                self.parts.append(
                    f'<rect x="{RIGHT + 16}" y="{self.y + offset}" width="{long:.1f}" height="5" '
                    f'fill="{colour}"/>'
                )
            amounts = f"{size(row['bytes_up'])}, {size(row['bytes_down'])}"
            self._text(RIGHT + 142, self.y + 10, amounts, "s")
            self.y += ROW
        left_out = len(self.figures["agents"]) - len(rows)
        if left_out:
            self._text(LEFT, self.y + 10, f"and {left_out} more agents", "s")
            self.y += ROW
        self._time_axis(self.y)
        self.y += 34

    def _strip(self, busy: list[float], away: list[float]) -> None:
        """Draw a row of cells, one for each stretch of equal colour."""
        colours = [
            AWAY if gone > 0.5 and not part else HEAT[math.ceil(min(part, 1.0) * (len(HEAT) - 1))]
            for part, gone in zip(busy, away, strict=True)
        ]
        index = 0
        for colour, cells in groupby(colours):
            length = len(list(cells))
            x = self._x(self.times[index - 1] if index else 0.0)
            index += length
            wide = self._x(self.times[index - 1]) - x
            self.parts.append(
                f'<rect x="{x:.1f}" y="{self.y + 1}" width="{wide:.1f}" height="{ROW - 2}" '
                f'fill="{colour}"/>'
            )

    def _legend(self, y: int) -> None:
        x = LEFT + 190
        for colour, text in (
            *((HEAT[index], f"{index * 100 // (len(HEAT) - 1)}%") for index in range(len(HEAT))),
            (AWAY, "away"),
        ):
            self.parts.append(f'<rect x="{x}" y="{y - 9}" width="12" height="10" fill="{colour}"/>')
            self._text(x + 16, y, text, "s")
            x += 52
        if self.figures["outages"]:
            self.parts.append(
                f'<rect x="{x}" y="{y - 9}" width="12" height="10" fill="none" stroke="#b33" />'
            )
            self._text(x + 16, y, "outage", "s")

    # --- parts --------------------------------------------------------------------------------

    def _band(self, outage: Row, y: int, high: int) -> None:
        left, right = self._span(outage)
        if right > left:
            self.parts.append(
                f'<rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" height="{high}" fill="{OUTAGE}"/>'
            )

    def _frame(self, outage: Row) -> None:
        left, right = self._span(outage)
        if right > left:
            self.parts.append(
                f'<rect x="{left:.1f}" y="{self.y + 1.5}" width="{right - left:.1f}" height="{ROW - 3}" '
                'fill="none" stroke="#b33" stroke-width="0.8"/>'
            )

    def _span(self, outage: Row) -> tuple[float, float]:
        return self._x(outage["from_s"]), self._x(min(outage["from_s"] + outage["for_s"], self.end_s))

    def _time_axis(self, y: float) -> None:
        step_s = next((each for each in NICE_TIMES_S if self.end_s / each <= 9), self.end_s)
        for index in range(int(self.end_s / step_s) + 1):
            x = self._x(index * step_s)
            self.parts.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 5}"/>')
            self._text(x, y + 18, _clock(index * step_s, step_s), "s m")

    def _x(self, at_s: float) -> float:
        return float(LEFT + (RIGHT - LEFT) * at_s / self.end_s)

    def _text(self, x: float, y: float, text: str, kind: str = "") -> None:
        attribute = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}"{attribute}>{markup.escape(text)}</text>')


def _clock(at_s: float, step_s: float) -> str:
    if not at_s:
        return "0"
    if step_s >= 86_400:
        return f"{at_s / 86_400:g} d"
    if step_s >= 3600:
        return f"{at_s / 3600:g} h"
    return f"{at_s / 60:g} min" if step_s >= 60 else duration(at_s)


def _nice(value: float) -> int:
    """Return the least of 2, 4, 10, 20, 40, 100, … that is not smaller: half of it is a whole number."""
    power = 1
    while power * 10 < value:
        power *= 10
    return next(step * power for step in (2, 4, 10) if step * power >= value)
