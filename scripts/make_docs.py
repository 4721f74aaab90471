"""Writes the parts of docs/ that are derived from the code, between their `generated` marks.

    python scripts/make_docs.py

What is derived cannot be out of date: a test fails while a part differs from what this script makes.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from edgerm_core import agents, codec, frameworks, limits, offers, tasks
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.cli.main import COMMANDS, edgerm
from edgerm_core.config import AgentConfig, Config, GatewayConfig, MasterConfig, PluginsConfig
from edgerm_core.ids import AgentId, BlobId, FrameworkId, TaskId
from edgerm_core.messages import (
    RETRYABLE_REFUSALS,
    Acknowledge,
    AnyMessage,
    BlobData,
    Heartbeat,
    HeartbeatAck,
    Kill,
    Launch,
    Message,
    RefusalCode,
    Register,
    Registered,
    StatusUpdate,
    Submit,
)
from edgerm_core.plugins import HOOK_OF_KIND, load_plugins
from edgerm_core.resources import Resources
from edgerm_core.tasks import Implementation, TaskSpec, TaskState

DOCS = Path(__file__).parent.parent / "docs"
FIRST_PARTY = re.compile(r"edgerm-(core|transport-|executor-|scheduler-|device-|demo)")


# --- states -----------------------------------------------------------------------------------


def diagram(table: Mapping[Any, frozenset[Any]]) -> str:
    """Return a transition table as a mermaid diagram; a state that may repeat has no arrow to itself."""
    first = min(table)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.name}"]
    for state in sorted(table):
        lines += [f"    {state.name} --> {after.name}" for after in sorted(table[state] - {state})]
        if not table[state]:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join([*lines, "```"])


def meanings(states: type[enum.IntEnum]) -> str:
    """Return a table of states, their numbers, and the text under each in the source."""
    source = inspect.getsource(states)
    found = re.findall(r'^    ([A-Z]+) = (\d+)\n(?:    """(.*?)""")?', source, re.M | re.S)
    rows = [f"| {name} | {number} | {' '.join(text.split())} |" for name, number, text in found]
    return "\n".join(["| state | number | meaning |", "|---|---|---|", *rows])


def states_of(states: type[enum.IntEnum], table: Mapping[Any, frozenset[Any]]) -> str:
    return f"{meanings(states)}\n\n{diagram(table)}"


def task_states() -> str:
    ends = ", ".join(state.name for state in TaskState if state.terminal)
    living = {
        state: frozenset(after for after in row if not after.terminal)
        for state, row in tasks.TRANSITIONS.items()
        if not state.terminal
    }
    text = f"From each of these states a task may also end, in any of {ends}."
    return f"{meanings(TaskState)}\n\n{diagram(living)}\n\n{text}"


# --- configuration ----------------------------------------------------------------------------


def attributes_of(struct: type[Any]) -> dict[str, str]:
    """Return field to text, out of a docstring's `Attributes:`."""
    text = inspect.getdoc(struct) or ""
    _, _, listing = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    for names, meaning in re.findall(
        r"^    ([a-z_]+(?:, [a-z_]+)*): (.*?)(?=^    [a-z_]+(?:, [a-z_]+)*: |\Z)", listing, re.M | re.S
    ):
        for name in names.split(", "):
            found[name] = " ".join(meaning.split()).replace("None:", "unset:").replace("|", "\\|")
    return found


def default_of(field: Any) -> str:
    """Return how a field's default is written in TOML."""
    value = field.default
    if field.required:
        return "required"
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return str(value)


def section(name: str, struct: type[Any]) -> str:
    """Return the table of a config section."""
    meaning = attributes_of(struct)
    rows = [
        f"| `{field.name}` | `{default_of(field)}` | {meaning.get(field.name, '')} |"
        for field in msgspec.structs.fields(struct)
    ]
    return "\n".join([f"### `[{name}]`", "", "| key | default | meaning |", "|---|---|---|", *rows])


def config_sections() -> dict[str, type[Any]]:
    """Return every section that core and the plugins of this repository have."""
    sections: dict[str, type[Any]] = {
        "plugins": PluginsConfig,
        "master": MasterConfig,
        "agent": AgentConfig,
        "gateway": GatewayConfig,
    }
    plugins = load_plugins(Config())
    for kind in HOOK_OF_KIND:
        for name in sorted(plugins.names(kind)):
            provider = plugins.provider(kind, name)
            if provider.config_type is not None:
                sections[f"{kind}.{name}"] = provider.config_type
    for name, struct in list(sections.items()):
        for field in msgspec.structs.fields(struct):
            info = msgspec.inspect.type_info(field.type)
            if isinstance(info, msgspec.inspect.VarTupleType):
                item = info.item_type
                if isinstance(item, msgspec.inspect.StructType):
                    sections[f"{name}.{field.name}[]"] = item.cls
    return sections


def configuration() -> str:
    return "\n\n".join(section(name, struct) for name, struct in config_sections().items())


# --- commands ---------------------------------------------------------------------------------


def command(name: str, cmd: click.Command) -> str:
    """Return a command's help as Markdown."""
    text = inspect.cleandoc(cmd.help or "").replace("\b\n", "")
    arguments = " ".join(
        (p.metavar or p.human_readable_name.upper()) for p in cmd.params if isinstance(p, click.Argument)
    )
    lines = [f"### `{' '.join(f'edgerm {name} {arguments}'.split())}`", "", text]
    options = [p for p in cmd.params if isinstance(p, click.Option)]
    if options:
        lines += ["", "| option | meaning |", "|---|---|"]
        for option in options:
            names = ", ".join([*option.opts, *option.secondary_opts])
            value = (
                "" if option.is_flag or option.count else f" {option.metavar or option.type.name.upper()}"
            )
            meaning = " ".join((option.help or "").split()).replace("|", "\\|")
            lines.append(f"| `{names}{value}` | {meaning} |")
    if isinstance(cmd, click.Group) and name:
        for below, found in cmd.commands.items():
            lines += ["", command(f"{name} {below}", found)]
    return "\n".join(lines)


def commands() -> str:
    context = click.Context(edgerm)
    parts = [command("", edgerm)]
    for name in COMMANDS:
        found = edgerm.get_command(context, name)
        assert found is not None
        parts.append(command(name, found))
    return "\n\n".join(parts)


# --- protocol ---------------------------------------------------------------------------------


def sizes() -> str:
    """Return sizes of typical messages, in bytes."""
    task = TaskId(4711)
    framework = FrameworkId("greenhouse")
    small = AgentInfo(
        AgentId("sensor-17"),
        "sensor-17",
        Resources.parse("cpus:0.1;mem:64KiB"),
        {"link.class": "constrained"},
    )
    spec = TaskSpec("sample", (Implementation("wasm", BlobId(bytes(32)), options={"function": "sample"}),))
    launch = Launch(
        task, 1, framework, spec.name, spec.implementations[0], Resources.parse("cpus:0.1;mem:32KiB")
    )
    examples: list[tuple[str, Message]] = [
        ("heartbeat with nothing to say", Heartbeat()),
        ("its answer with nothing new", HeartbeatAck()),
        ("acknowledge", Acknowledge(task, 1, 2)),
        ("kill", Kill(task, 1)),
        ("status update: RUNNING", StatusUpdate(task, 1, 2, TaskState.RUNNING, "started")),
        (
            "status update: FINISHED, with time and an 8-byte result",
            StatusUpdate(task, 1, 3, TaskState.FINISHED, "exited", exit_code=0, result=bytes(8), at=1.7e9),
        ),
        ("registered", Registered(1, 60.0, 185.0, "0123456789abcdef")),
        ("launch of a WASM function", launch),
        ("submit of the same", Submit(1, ("0123456789abcdef",), (spec,))),
        (
            "register of a small sensor node",
            Register((1, 1), small, "c0ffee00c0ffee00", "deadbeefdeadbeef"),
        ),
        ("blob-data around its data", BlobData(1, BlobId(bytes(32)), 65536, 1 << 20, b"")),
    ]
    rows = [f"| {name} | {len(codec.encode(message))} |" for name, message in examples]
    return "\n".join(["| message | bytes |", "|---|---|", *rows])


def exchange() -> str:
    """Return the life of an agent with one task, frame by frame."""
    task = TaskId(17)
    agent = AgentInfo(
        AgentId("n7"), "n7", Resources.parse("cpus:1;mem:64MiB"), {}, (), (Fingerprint("wasm"),)
    )
    implementation = Implementation("process", args=("true",))
    frames: list[tuple[str, str, list[Message]]] = [
        (">", "I am n7; I speak version 1; I run nothing", [Register((1, 1), agent, "b1", "i1")]),
        (
            "<",
            "welcome: a heartbeat every 10 s, unreachable after 35 s of silence",
            [Registered(1, 10.0, 35.0)],
        ),
        ("<", "run attempt 1 of task 17", [Launch(task, 1, FrameworkId("lab"), "hello", implementation)]),
        (">", "its first update: it runs", [StatusUpdate(task, 1, 1, TaskState.RUNNING, "started")]),
        ("<", "update 1 is on my disk", [Acknowledge(task, 1, 1)]),
        (">", "nothing new for 10 s", [Heartbeat()]),
        ("<", "heard", [HeartbeatAck()]),
        (">", "it ended well", [StatusUpdate(task, 1, 2, TaskState.FINISHED, "exited", exit_code=0)]),
        ("<", "update 2 is on my disk", [Acknowledge(task, 1, 2)]),
    ]
    lines = []
    for direction, meaning, messages in frames:
        lines.append(f"{direction} {', '.join(type(m).__name__ for m in messages)}: {meaning}")
        text = codec.encode_batch(messages).hex()
        lines += [f"    {text[start : start + 80]}" for start in range(0, len(text), 80)]
    return "\n".join(["```text", *lines, "```"])


def numbers() -> str:
    """Return the list of messages."""
    rows = []
    for message_type in AnyMessage.__args__:
        summary = (inspect.getdoc(message_type) or "").split("\n\n")[0]
        rows.append(
            f"| {message_type.__struct_config__.tag} | {message_type.__name__} "
            f"| {' '.join(summary.split())} |"
        )
    return "\n".join(["| number | message | meaning |", "|---|---|---|", *rows])


def refusals() -> str:
    rows = [f"| `{code}` | {'yes' if code in RETRYABLE_REFUSALS else 'no'} |" for code in RefusalCode]
    return "\n".join(["| code | trying again unchanged can help |", "|---|---|", *rows])


def wire_limits() -> str:
    rows = [
        ("bytes in a frame", limits.MAX_MESSAGE_BYTES),
        ("messages in a frame", limits.MAX_BATCH_MESSAGES),
        ("CBOR containers inside each other", limits.MAX_NESTING),
        ("seconds until the greeting", f"{limits.GREETING_TIMEOUT_S:g}"),
        ("bytes of a piece of a blob", limits.BLOB_CHUNK_BYTES),
        ("bytes of a blob (config)", limits.MAX_BLOB_BYTES),
        ("bytes of a spec", limits.MAX_SPEC_BYTES),
        ("bytes of a result", limits.MAX_RESULT_BYTES),
        ("tasks in one submit, instances counted", limits.MAX_SUBMIT_TASKS),
        ("rows of an answer", limits.QUERY_MAX_ROWS),
        ("bytes waiting for a slow peer", limits.SESSION_OUTBOX_BYTES),
    ]
    return "\n".join(["| what | at most |", "|---|---|", *(f"| {what} | {most} |" for what, most in rows)])


# --- files ------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "task-states": task_states,
    "agent-states": lambda: states_of(agents.AgentState, agents.TRANSITIONS),
    "framework-states": lambda: states_of(frameworks.FrameworkState, frameworks.TRANSITIONS),
    "offer-states": lambda: states_of(offers.OfferState, offers.TRANSITIONS),
    "configuration": configuration,
    "commands": commands,
    "exchange": exchange,
    "sizes": sizes,
    "numbers": numbers,
    "refusals": refusals,
    "wire-limits": wire_limits,
}
MARK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end of generated: \2 -->)", re.S)


def render(text: str) -> str:
    """Return `text` with every generated part made anew."""
    return MARK.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", text)


def main() -> None:
    """Write all files anew."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(render(text), encoding="utf-8")


if __name__ == "__main__":
    main()
