"""Writes docs/protocol/vectors.json: every message in bytes, minimal and full, for other implementations.

Run it after a deliberate change of the protocol and read the difference: what stands there already may
not change within a protocol version. `python scripts/make_vectors.py`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2

from edgerm_core import codec
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Constraint, Preference
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import AgentId, BlobId, FrameworkId, OfferId, TaskId, blob_id
from edgerm_core.messages import (
    PROTOCOL_VERSION,
    Accept,
    Acknowledge,
    Answer,
    AnyMessage,
    Auth,
    BlobData,
    BlobGet,
    BlobOffer,
    BlobState,
    Decline,
    Done,
    Drain,
    Failed,
    Forget,
    Greet,
    Greeted,
    Heartbeat,
    HeartbeatAck,
    Inventory,
    Kill,
    KillTasks,
    Launch,
    LogData,
    LogGet,
    LogStream,
    Offers,
    Query,
    Reconcile,
    Reconciled,
    Refused,
    Register,
    Registered,
    RelayClose,
    Relayed,
    RelayOpen,
    Rescind,
    Revive,
    StatusUpdate,
    Submit,
    Submitted,
    Subscribe,
    Subscribed,
    Suppress,
    TaskAcknowledge,
    TaskReport,
    TaskUpdate,
    TaskUsage,
    Unsubscribe,
    Usage,
)
from edgerm_core.offers import Offer
from edgerm_core.resources import Device, DeviceRequest, ResourceRequest, Resources
from edgerm_core.tasks import (
    DisconnectPolicy,
    File,
    Implementation,
    ReschedulePolicy,
    RestartPolicy,
    TaskSpec,
    TaskState,
    Volume,
)

PATH = Path(__file__).parent.parent / "docs" / "protocol" / "vectors.json"

MODULE = b"\0asm\x01\0\0\0"
BLOB: BlobId = blob_id(MODULE)
AGENT = AgentId("gw-3f9a")
FRAMEWORK = FrameworkId("greenhouse")
T17 = TaskId(17)
T18 = TaskId(18)
O3 = OfferId(3)

RESOURCES = Resources.parse("cpus:4;mem:3800MiB;ports:[31000-31999]")
SENSOR = Device("bme280-0", "bme280", 1, {"bus": "i2c-1"}, {"temperature": "degC"})
WASM = Fingerprint("wasm", "wasmtime 50.0.1", True, "", {"mem_limit": True}, {"wasi": "p1"})
INFO = AgentInfo(
    AGENT,
    "gateway-3",
    RESOURCES,
    {"os": "linux", "floor": 3, "link.bytes_per_s": 125000.0, "outdoor": False},
    (SENSOR,),
    (WASM,),
)
SMALL_SPEC = TaskSpec("hello", (Implementation("process", args=("echo", "hi")),))
FULL_SPEC = TaskSpec(
    name="sample",
    implementations=(
        Implementation("wasm", BLOB, (1, 2.5, "x"), {"function": "sample", "fuel": 1000}),
        Implementation("process", args=("sh", "-c", "date")),
    ),
    resources=ResourceRequest(
        {"cpus": 250, "mem": 64000, "ports": 1000},
        {"ports": ((8080, 8080),)},
        {},
        (DeviceRequest("bme280", 1, (Constraint("bus", "==", "i2c-1"),)),),
    ),
    env={"PERIOD": "10"},
    constraints=(Constraint("os", "==", "linux"), Constraint("floor", ">=", "2")),
    preferences=(Preference(Constraint("outdoor", "==", "true"), 2.0),),
    files=(File("model.bin", BLOB, True),),
    volumes=(Volume("data", "series", True),),
    restart=RestartPolicy("always", 5, 60.0, 0.5, 30.0),
    reschedule=ReschedulePolicy(2, 5, 2.0, 60.0),
    disconnect=DisconnectPolicy(120.0, False, 600.0),
    time_limit_s=3600.0,
    kill_grace_s=10.0,
    instances=2,
)

EXAMPLES: dict[str, AnyMessage] = {
    "register, minimal": Register((1, 1), AgentInfo(AgentId("n7")), "b1", "i1"),
    "register, full": Register(
        (1, 2),
        INFO,
        "boot-51",
        "inc-2",
        (TaskReport(T17, 1, TaskState.RUNNING, 1, 3),),
        1024,
        Auth("x", b"\1"),
    ),
    "register, of a board that takes three tasks": Register(
        (1, 1),
        AgentInfo(AgentId("b7"), "board", executors=(Fingerprint("python"),), max_tasks=3),
        "b1",
        "i1",
    ),
    "registered": Registered(1, 10.0, 35.0, "m-1"),
    "registered, by a gateway that is cut off": Registered(1, 60.0, 185.0, "m-1", 12.5),
    "heartbeat": Heartbeat(),
    "heartbeat, of a gateway": Heartbeat((1, 4, 300)),
    "heartbeat-ack, unchanged": HeartbeatAck(),
    "heartbeat-ack, slower": HeartbeatAck(60.0, 185.0),
    "heartbeat-ack, by a gateway that is cut off": HeartbeatAck(away_s=72.5),
    "inventory, minimal": Inventory(),
    "inventory, devices only": Inventory(devices=(SENSOR,)),
    "inventory, full": Inventory(RESOURCES, {"battery": 81}, (), (WASM,)),
    "status-update, minimal": StatusUpdate(T17, 1, 1, TaskState.STARTING),
    "status-update, running": StatusUpdate(T17, 1, 2, TaskState.RUNNING, "started"),
    "status-update, full": StatusUpdate(
        T17, 1, 3, TaskState.FAILED, "exit-code", "exited with code 3", 2, 3, 9, b"\x2a", 1.5
    ),
    "acknowledge": Acknowledge(T17, 1, 3),
    "launch, minimal": Launch(T17, 1, FRAMEWORK, "hello", Implementation("process", args=("true",))),
    "launch, full": Launch(
        T17,
        2,
        FRAMEWORK,
        "sample",
        FULL_SPEC.implementations[0],
        Resources({"cpus": 250, "mem": 64000}, {"ports": ((31000, 31000),)}, {}, {"bme280-0": 1}),
        {"PERIOD": "10"},
        FULL_SPEC.files,
        FULL_SPEC.volumes,
        FULL_SPEC.restart,
        600.0,
        3600.0,
        10.0,
        1,
    ),
    "kill, minimal": Kill(T17, 2),
    "kill, full": Kill(T17, 2, 0.0, "agent-draining"),
    "blob-get": BlobGet(5, BLOB, 0, 65536),
    "blob-data": BlobData(5, BLOB, 0, 8, MODULE),
    "blob-offer": BlobOffer(6, BLOB, 8),
    "blob-state": BlobState(6, BLOB, 0, 8),
    "log-get, minimal": LogGet(7, T17, LogStream.STDOUT),
    "log-get, full": LogGet(7, T17, LogStream.STDERR, -4096, True, True, 2),
    "log-data": LogData(7, 0, b"hi\n"),
    "log-data, last": LogData(7, 3, b"", True, "gone"),
    "usage": Usage((TaskUsage(T17, 1, 1500, 2048, 4096, 100, 200), TaskUsage(T18, 2, None, 64))),
    "relay-open, minimal": RelayOpen(1),
    "relay-open, full": RelayOpen(4, "coap://[fd00::17]:5683", 1024, 12.5, "gw-3f9a"),
    "relayed": Relayed(4, b"\x81\x03"),
    "relay-close, minimal": RelayClose(4),
    "relay-close, full": RelayClose(4, "silent for 190 s"),
    "subscribe, minimal": Subscribe((1, 1), FrameworkInfo(FRAMEWORK)),
    "subscribe, full": Subscribe(
        (1, 1), FrameworkInfo(FRAMEWORK, "greenhouse", 2000, "lab/sensing", 3600.0, True), Auth("x", b"\1")
    ),
    "subscribed": Subscribed(1, True, "m-1"),
    "submit, small": Submit(1, ("k1",), (SMALL_SPEC,)),
    "submit, full": Submit(2, ("k2",), (FULL_SPEC,)),
    "submitted": Submitted(2, ((T17, T18),)),
    "kill-tasks": KillTasks(3, (T17, T18)),
    "kill-tasks, at once": KillTasks(3, (T17,), 0.0),
    "task-update, minimal": TaskUpdate(T17, 1, TaskState.PENDING),
    "task-update, full": TaskUpdate(
        T17, 9, TaskState.FINISHED, "exited", "exited with code 0", AGENT, 2, 1, 0, 15, b"42", "gateway-3"
    ),
    "task-acknowledge": TaskAcknowledge((T17,)),
    "reconcile, all": Reconcile(4),
    "reconcile, some": Reconcile(4, (T17, TaskId(99))),
    "reconciled": Reconciled(4, (TaskId(99),)),
    "offers": Offers(
        (Offer(O3, AGENT, "gateway-3", RESOURCES, {"os": "linux"}, (SENSOR,), ("wasm",), 60.0),)
    ),
    "accept": Accept(8, (O3,), ("k3",), (SMALL_SPEC,), 30.0),
    "decline, minimal": Decline((O3,)),
    "decline, full": Decline((O3,), 3600.0),
    "revive": Revive(),
    "suppress": Suppress(),
    "rescind": Rescind((O3,)),
    "unsubscribe": Unsubscribe(9),
    "greet": Greet((1, 1)),
    "greeted": Greeted(1, "m-1"),
    "query": Query(1, "tasks", {"limit": 10, "state": ["RUNNING"]}),
    "answer": Answer(1, ({"id": 17, "name": "hello"},), 1),
    "drain": Drain(2, AGENT),
    "drain, undone": Drain(2, AGENT, True),
    "forget": Forget(3, AGENT),
    "done": Done(3),
    "failed": Failed(2, "spec", "task a: instances must be 1 to 10000, not 0"),
    "refused": Refused("version", "no protocol version in common"),
}


def readable(value: Any) -> Any:
    """Return decoded CBOR as JSON, byte strings as {"h": hex}."""
    if isinstance(value, bytes):
        return {"h": value.hex()}
    if isinstance(value, list):
        return [readable(item) for item in value]
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    return value


def make() -> dict[str, Any]:
    """Return the content of the file."""
    vectors = []
    for name, message in EXAMPLES.items():
        data = codec.encode(message)
        vectors.append(
            {
                "name": name,
                "type": type(message).__name__,
                "value": readable(cbor2.loads(data)),
                "hex": data.hex(),
            }
        )
    return {
        "protocol_version": PROTOCOL_VERSION,
        "note": 'Byte strings stand as {"h": hex}. A float is a float in the bytes too.',
        "vectors": vectors,
    }


def render() -> str:
    """Return the file's text, one vector a line so that differences read well."""
    content = make()
    lines = ",\n".join("    " + json.dumps(vector, ensure_ascii=False) for vector in content["vectors"])
    return (
        "{\n"
        f'  "protocol_version": {content["protocol_version"]},\n'
        f'  "note": {json.dumps(content["note"])},\n'
        f'  "vectors": [\n{lines}\n  ]\n'
        "}\n"
    )


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
