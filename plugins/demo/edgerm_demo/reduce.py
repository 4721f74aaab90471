"""Runs as a process task on the gateway: brings the weeks' findings together.

Reads `findings.json` from its working directory, prints a table of the seasons, and leaves the
year's figures as its result value. Plain Python, nothing but the standard library.
"""

import json
import os


def celsius(tenths_f: float) -> float:
    return (tenths_f / 10 - 32) / 1.8


def main() -> None:
    with open("findings.json") as file:
        weeks = json.load(file)
    print(
        f"{'weeks':>7}  {'mean °C':>8}  {'90 % between':>14}  {'min':>6}  {'max':>6}  heating degree days"
    )
    for first in range(0, len(weeks), 13):
        rows = weeks[first : first + 13]
        count = sum(week["count"] for week in rows)
        mean = celsius(sum(week["total"] for week in rows) / count)
        low = celsius(sum(week["total_p05"] for week in rows) / count)
        high = celsius(sum(week["total_p95"] for week in rows) / count)
        coldest = celsius(min(week["low"] for week in rows))
        hottest = celsius(max(week["high"] for week in rows))
        degree_days = sum(week["heating"] for week in rows) / 10 / 1.8 / 24
        span = f"{low:.2f} … {high:.2f}"
        print(
            f"{first + 1:3}-{first + len(rows):<3}  {mean:8.2f}  {span:>14}  {coldest:6.1f}  {hottest:6.1f}"
            f"  {degree_days:8.1f}"
        )
    year = {
        "hours": sum(week["count"] for week in weeks),
        "total": sum(week["total"] for week in weeks),
        "low": min(week["low"] for week in weeks),
        "high": max(week["high"] for week in weeks),
        "heating": sum(week["heating"] for week in weeks),
        "total_p05": sum(week["total_p05"] for week in weeks),
        "total_p95": sum(week["total_p95"] for week in weeks),
    }
    with open(os.environ["EDGERM_RESULT_FILE"], "w") as file:
        json.dump(year, file)


main()
