"""Every error edgerm raises on purpose.

EdgermError
    ConfigError            the operator's file is wrong: names the key and what was expected
    SpecError              a task spec is wrong: the task becomes ERROR, nothing else is harmed
    ResourceError          resource text or arithmetic that makes no sense
    TransitionError        a lifecycle step its table does not list: a bug in edgerm, never the user's fault
    PluginError            a plugin is missing, broken or of the wrong version: names the plugin
    ProtocolError          what the peer sent is wrong
        DecodeError        the bytes are not a message
        VersionError       no protocol version in common
    RefusedError           the peer refused us for good: retrying unchanged cannot help
    RequestFailed          the master did not carry out one request: its code says why
    OfferGone              an offer was rescinded or answered before: wait for the next one
    TaskFailed             a task ended in another way than FINISHED
    TransportError         the network's fault: retrying later may help
        ConnectionClosed   the connection ended, by either side
    ExecutorError          a task could not be started or followed
        TaskLost           a saved task handle points at nothing any more
    StoreError             the disk's fault: full, unwritable, damaged
        StoreLocked        another process owns the data directory
    BlobError              a blob is missing, damaged or too large

Each class carries its data as attributes and builds its sentence in `__str__` or in the
constructor; the sentence says what happened, where, and what to do. Programmer errors are `assert`.
"""

from __future__ import annotations


class EdgermError(Exception):
    """Base of all errors below. `str(error)` is one sentence for a person."""


class ConfigError(EdgermError):
    """The configuration is wrong.

    Attributes:
        where: file and key path, such as `edgerm.toml: master.listen[0]`.
        problem: what is wrong and what was expected.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class SpecError(EdgermError):
    """A task spec is wrong; retrying the same spec cannot help."""


class ResourceError(EdgermError):
    """Resource text that cannot be read, or arithmetic that would go below zero."""


class TransitionError(EdgermError):
    """A lifecycle step that its transition table does not list.

    Attributes:
        subject: what was to change, such as `task t7`.
        start: state before.
        finish: state asked for.
        story: what happened to it so far, oldest first.
    """

    def __init__(self, subject: str, start: str, finish: str, story: list[str]) -> None:
        super().__init__(subject, start, finish, story)
        self.subject = subject
        self.start = start
        self.finish = finish
        self.story = story

    def __str__(self) -> str:
        lines = "".join(f"\n  {line}" for line in self.story)
        return f"{self.subject} cannot go from {self.start} to {self.finish}; its story:{lines}"


class PluginError(EdgermError):
    """A plugin is missing, broken or of the wrong version.

    Attributes:
        plugin: its distribution or entry-point name.
        problem: what is wrong and what to do.
    """

    def __init__(self, plugin: str, problem: str) -> None:
        super().__init__(plugin, problem)
        self.plugin = plugin
        self.problem = problem

    def __str__(self) -> str:
        return f"plugin {self.plugin}: {self.problem}"


class ProtocolError(EdgermError):
    """What the peer sent is wrong."""


class DecodeError(ProtocolError):
    """The bytes are not a message of this protocol, or exceed a limit."""


class VersionError(ProtocolError):
    """The peers have no protocol version in common."""


class RefusedError(EdgermError):
    """The peer refused us for good; trying again unchanged cannot help.

    Attributes:
        code: machine-readable reason, one of `messages.RefusalCode` or a later one.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class RequestFailed(EdgermError):
    """The master did not carry out one request; the session goes on.

    Attributes:
        code: machine-readable reason, one of `messages.RefusalCode` or a later one.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class OfferGone(EdgermError):
    """An offer was rescinded, has expired or was answered before, or its agent is away."""


class TaskFailed(EdgermError):
    """A task ended in another way than FINISHED.

    Attributes:
        task: its id and name, such as `t17 (hello)`.
        state: name of the state it ended in, such as `FAILED`.
        reason: machine-readable reason.
        message: what the agent or the master said about it; may be empty.
    """

    def __init__(self, task: str, state: str, reason: str, message: str = "") -> None:
        super().__init__(task, state, reason, message)
        self.task = task
        self.state = state
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        detail = f": {self.message}" if self.message else ""
        return f"task {self.task} {self.state} ({self.reason}){detail}"


class TransportError(EdgermError):
    """The network failed; trying again later may help."""


class ConnectionClosed(TransportError):
    """The connection ended, by either side or by the network."""


class ExecutorError(EdgermError):
    """A task could not be started, stopped or followed.

    Attributes:
        reason: machine-readable reason for the task's status.
        recoverable: whether starting the same task again can help.
    """

    def __init__(self, message: str, *, reason: str = "launch-failed", recoverable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.recoverable = recoverable


class TaskLost(ExecutorError):
    """A saved task handle points at nothing that runs or has left an exit status."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="agent-restarted", recoverable=True)


class StoreError(EdgermError):
    """The disk is full, unwritable or damaged."""


class StoreLocked(StoreError):
    """Another process owns the data directory."""


class BlobError(EdgermError):
    """A blob is missing, damaged or larger than allowed."""
