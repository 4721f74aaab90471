"""All that the master says about its cluster, as one JSON object: a program, for it runs in a namespace.

python -m tests.e2e.chaos.listing URL
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

from edgerm_core.client import connect_operator


async def listing(url: str) -> dict[str, Any]:
    """Return agents, frameworks and tasks, each task with its story."""
    async with connect_operator(url, insecure=True) as operator:
        rows = {
            kind: list((await operator.query(kind, limit=10_000)).rows)
            for kind in ("agents", "frameworks", "tasks")
        }
        for task in rows["tasks"]:
            task["story"] = list((await operator.query("story", task=task["id"])).rows)
            task["result"] = None if task["result"] is None else task["result"].decode()
        return {kind: list(each) for kind, each in rows.items()}


if __name__ == "__main__":
    print(json.dumps(anyio.run(listing, sys.argv[1])))
