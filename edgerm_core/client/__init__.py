"""The SDK a framework uses, async and blocking.

Async: `connect_framework`, `connect_operator`. Blocking: the same names in `client.blocking`, and
`MapExecutor` in the manner of concurrent.futures. `process`, `container`, `wasm` and `task` describe what
to run.
"""

from edgerm_core.client.blobs import BlobSource
from edgerm_core.client.executor import MapExecutor
from edgerm_core.client.framework import Framework, connect_framework
from edgerm_core.client.logs import LogPiece
from edgerm_core.client.offers import HeldOffer
from edgerm_core.client.operator import Operator, connect_operator
from edgerm_core.client.specs import Draft, Recipe, container, process, task, wasm
from edgerm_core.client.tasks import Task
from edgerm_core.errors import OfferGone, RequestFailed, TaskFailed

__all__ = [
    "BlobSource",
    "Draft",
    "Framework",
    "HeldOffer",
    "LogPiece",
    "MapExecutor",
    "OfferGone",
    "Operator",
    "Recipe",
    "RequestFailed",
    "Task",
    "TaskFailed",
    "connect_framework",
    "connect_operator",
    "container",
    "process",
    "task",
    "wasm",
]
