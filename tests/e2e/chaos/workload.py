"""What the frameworks submit: each job is made of seed, framework and number, and of nothing else.

Each process task writes down for itself that it started and how it ended, and holds a lock for as long as
anything of it lives; so what happened can be told without asking anybody who may be wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from edgerm_core.client import process, task, wasm
from edgerm_core.client.specs import Draft, Recipe, TaskOptions
from edgerm_core.tasks import (
    DisconnectPolicy,
    Implementation,
    Reason,
    ReschedulePolicy,
    RestartPolicy,
    TaskState,
    Volume,
)

AT_THE_END: Final = 1e9
"""`kill_after_s` of what is only killed when everything is over."""

NO_MATTER_WHAT: Final = 1_000
"""Losses and failures that are tried again by jobs that must get through."""

PAIRS: Final = ("left", "right")
"""Values of the attribute `pair` of agents."""

EXIT_UNKNOWN: Final = "exit-unknown"
"""The process executor's reason where the process ended while its keeper was dead."""

PRELUDE: Final = """
key=$CHAOS_KEY.$EDGERM_TASK_INDEX
log=$CHAOS_DIR/$key
me=$EDGERM_AGENT_NAME
read -r boot < /proc/sys/kernel/random/boot_id
say() { echo "$1 $EDGERM_ATTEMPT $EDGERM_RESTARTS $me $boot $EPOCHREALTIME" >> $log.says; }
finish() { say "end-$1"; exit $1; }
exec 8>> $log.$me.alive 9>> $log.$me.only
flock --nonblock 9 || say twice
flock --shared 8
say start
for alive in $log.*.alive; do
    other=${alive#$log.}; other=${other%.alive}
    [ $other = $me ] || flock --nonblock $alive true || say beside-$other
done
"""
"""Lines: what, attempt, restarts, agent, boot, time. All children inherit both locks: one that no other
run on this agent may hold at the same time, and one by which runs on other agents see that it lives."""

NUMBERS: Final = b"""
(module (func (export "run") (param i64) (result i64)
  (i64.add (i64.mul (local.get 0) (local.get 0)) (i64.const 1))))
"""

WRITER: Final = b"""
(module
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "log")
  (func $say (param $word i64)
    (i64.store (i32.const 8184) (local.get $word))
    (i32.store8 (i32.add (i32.const 8192) (i32.load (i32.const 36))) (i32.const 10))
    (i32.store (i32.const 48) (i32.const 8184))
    (i32.store (i32.const 52) (i32.add (i32.const 9) (i32.load (i32.const 36))))
    (if (call $write (i32.load (i32.const 40)) (i32.const 48) (i32.const 1) (i32.const 44))
      (then (unreachable))))
  (func (export "run") (param $ms i64) (param $value i64) (result i64)
    (if (call $sizes (i32.const 32) (i32.const 36)) (then (unreachable)))
    (if (call $environ (i32.const 1024) (i32.const 8192)) (then (unreachable)))
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 1)
        (i64.const 64) (i64.const 64) (i32.const 1) (i32.const 40)) (then (unreachable)))
    (call $say (i64.const 0x0020207472617473))
    (i32.store8 (i32.const 136) (i32.const 0))
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.mul (local.get $ms) (i64.const 1000000)))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 44)))
    (call $say (i64.const 0x0020202020646e65))
    (local.get $value)))
"""
"""Appends `start` and `end`, each followed by its environment, to a file on a volume; sleeps in between."""


class Expected(msgspec.Struct, frozen=True):
    """How a job may end.

    Attributes:
        state: its end; others are wrong.
        reasons: with which reasons; empty: any.
        exit_code, result: of the end, where there is one.
    """

    state: TaskState
    reasons: tuple[str, ...] = ()
    exit_code: int | None = None
    result: bytes | None = None


class Job(msgspec.Struct, frozen=True):
    """One submission.

    Attributes:
        key: also the tasks' name.
        kind: as in `KINDS`.
        instances: how many tasks it makes.
        kill_after_s: its framework kills it so long after it was submitted; None: it ends by itself.
        expected: its end unless it is killed before.
        draft: makes the spec; given the directory where tasks leave their lines.
    """

    key: str
    kind: str
    instances: int
    kill_after_s: float | None
    expected: Expected
    draft: Callable[[Path], Draft]

    @property
    def witnessed(self) -> bool:
        """Whether its tasks write lines of their own."""
        return self.kind not in ("number", "missing", "bad", "never")


def make_job(seed: int, framework: str, number: int) -> Job:
    """Return the job of that number."""
    rng = random.Random(f"{seed} {framework} {number}")
    kind = rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    return KINDS[kind][1](rng, f"{framework}-{number}", kind)


# --- kinds ----------------------------------------------------------------------------------------


def _finishes(result: bytes | None = None) -> Expected:
    return Expected(TaskState.FINISHED, exit_code=None if result else 0, result=result)


def _fails(*reasons: str, exit_code: int | None = None) -> Expected:
    return Expected(TaskState.FAILED, (*reasons, EXIT_UNKNOWN), exit_code)


def _job(
    rng: random.Random,
    key: str,
    kind: str,
    body: str,
    expected: Expected,
    kill_after_s: float | None = None,
    tries: int = 0,
    **options: object,
) -> Job:
    """Return a job that runs `body` in bash.

    Parameters:
        tries: failures that are tried again.
    """
    instances = int(str(options.pop("instances", 1)))
    patience_s = rng.choice((0.5, 2.0, 30.0))
    env = {"CHAOS_KEY": key}
    more: TaskOptions = {
        "name": key,
        "cpus": 0.2,
        "mem": 16,
        "instances": instances,
        "kill_grace_s": rng.choice((0.5, 3.0)),
        "reschedule": ReschedulePolicy(tries, NO_MATTER_WHAT, delay_s=0.2, max_delay_s=1.0),
        "disconnect": DisconnectPolicy(lost_after_s=patience_s),
        "env": env,
        **options,  # type: ignore[typeddict-item]
    }

    def draft(directory: Path) -> Draft:
        env["CHAOS_DIR"] = str(directory)
        return task(process("bash", "-c", PRELUDE + body), **more)

    return Job(key, kind, instances, kill_after_s, expected, draft)


def _short(rng: random.Random, key: str, kind: str) -> Job:
    body = f"sleep {1.5 * rng.random() ** 2:.2f}; printf $key > $EDGERM_RESULT_FILE; finish 0"
    instances = rng.choice((1, 1, 1, 3))
    return _job(rng, key, kind, body, _finishes(), tries=NO_MATTER_WHAT, instances=instances)


def _children(rng: random.Random, key: str, kind: str) -> Job:
    body = f"sleep 99 & setsid sleep 99 & setsid bash -c 'sleep 99 &'; sleep {rng.random():.2f}; finish 0"
    return _job(rng, key, kind, body, _finishes(), tries=NO_MATTER_WHAT)


def _failing(rng: random.Random, key: str, kind: str) -> Job:
    code = rng.randint(1, 99)
    body = f"sleep {rng.random():.2f}; finish {code}"
    return _job(rng, key, kind, body, _fails(Reason.EXIT_CODE, exit_code=code))


def _trying(rng: random.Random, key: str, kind: str) -> Job:
    body = f"sleep {rng.random():.2f}; [ $EDGERM_ATTEMPT -ge 3 ] && finish 0; finish 4"
    return _job(rng, key, kind, body, _finishes(), tries=NO_MATTER_WHAT)


def _restarting(rng: random.Random, key: str, kind: str) -> Job:
    body = f"sleep {rng.random():.2f}; [ $EDGERM_RESTARTS -ge 2 ] && finish 0; finish 5"
    restart = RestartPolicy("failure", NO_MATTER_WHAT, delay_s=0.2, max_delay_s=0.5)
    return _job(rng, key, kind, body, _finishes(), tries=NO_MATTER_WHAT, restart=restart)


def _service(rng: random.Random, key: str, kind: str) -> Job:
    body = f"sleep {0.5 + 4 * rng.random():.2f}; finish 6"
    restart = RestartPolicy("always", NO_MATTER_WHAT, delay_s=0.2, max_delay_s=1.0)
    kill_after_s = rng.choice((3.0, 10.0, AT_THE_END))
    killed = Expected(TaskState.KILLED)
    return _job(rng, key, kind, body, killed, kill_after_s, NO_MATTER_WHAT, restart=restart)


def _long(rng: random.Random, key: str, kind: str) -> Job:
    # Only two agents can run it, and one that gave it up has not ended it yet when it comes back there.
    wait = f"trap '' TERM; for i in {{1..{rng.randint(20, 28)}}}; do sleep 0.5; done"
    body = f"{wait}; printf $key > $EDGERM_RESULT_FILE; finish 0"
    pair = [f"pair=={rng.choice(PAIRS)}"]
    return _job(
        rng,
        key,
        kind,
        body,
        _finishes(),
        tries=NO_MATTER_WHAT,
        constraints=pair,
        disconnect=DisconnectPolicy(lost_after_s=0.5),
        kill_grace_s=3.0,
    )


def _stubborn(rng: random.Random, key: str, kind: str) -> Job:
    body = "trap '' TERM; while :; do sleep 1; done"
    return _job(rng, key, kind, body, Expected(TaskState.KILLED), 2 + 6 * rng.random(), NO_MATTER_WHAT)


def _polite(rng: random.Random, key: str, kind: str) -> Job:
    body = "trap 'finish 7' TERM; while :; do sleep 0.3; done"
    return _job(rng, key, kind, body, Expected(TaskState.KILLED), 2 + 6 * rng.random(), NO_MATTER_WHAT)


def _limited(rng: random.Random, key: str, kind: str) -> Job:
    return _job(rng, key, kind, "sleep 99; finish 8", _fails(Reason.TIME_LIMIT), time_limit_s=1.0)


def _lonely(rng: random.Random, key: str, kind: str) -> Job:
    body = f"sleep {2 + 3 * rng.random():.2f}; finish 0"
    disconnect = DisconnectPolicy(lost_after_s=0.5, stop_after_s=0.5 + rng.random())
    return _job(rng, key, kind, body, _finishes(), tries=NO_MATTER_WHAT, disconnect=disconnect)


def _staying(rng: random.Random, key: str, kind: str) -> Job:
    body = f"sleep {2 + 5 * rng.random():.2f}; finish 0"
    disconnect = DisconnectPolicy(lost_after_s=0.5, replace=False)
    return _job(rng, key, kind, body, _finishes(), tries=NO_MATTER_WHAT, disconnect=disconnect)


def _never(rng: random.Random, key: str, kind: str) -> Job:
    return _job(rng, key, kind, "finish 9", Expected(TaskState.KILLED), AT_THE_END, cpus=1000)


def _plain(key: str, kind: str, recipe: Callable[[], Recipe | Implementation], expected: Expected) -> Job:
    def draft(_: Path) -> Draft:
        again = ReschedulePolicy(losses=NO_MATTER_WHAT, delay_s=0.2, max_delay_s=1.0)
        lost = DisconnectPolicy(lost_after_s=1.0)
        return task(recipe(), name=key, cpus=0.2, mem=16, reschedule=again, disconnect=lost)

    return Job(key, kind, 1, None, expected, draft)


def _missing(rng: random.Random, key: str, kind: str) -> Job:
    return _plain(key, kind, lambda: process("no-such-program"), _fails(Reason.LAUNCH_FAILED))


def _bad(rng: random.Random, key: str, kind: str) -> Job:
    expected = Expected(TaskState.ERROR, (Reason.SPEC_INVALID,))
    return _plain(key, kind, lambda: wasm(NUMBERS, function="no-such-function"), expected)


def _number(rng: random.Random, key: str, kind: str) -> Job:
    value = rng.randrange(1 << 20)
    expected = _finishes(str(value * value + 1).encode())
    return _plain(key, kind, lambda: wasm(NUMBERS, value, function="run"), expected)


def _writer(rng: random.Random, key: str, kind: str) -> Job:
    value, sleep_ms = rng.randrange(1 << 20), int(4000 * rng.random() ** 2)

    def draft(_: Path) -> Draft:
        return task(
            wasm(WRITER, sleep_ms, value, function="run"),
            name=key,
            cpus=0.2,
            mem=16,
            volumes=[Volume("/evidence", key)],
            reschedule=ReschedulePolicy(0, NO_MATTER_WHAT, delay_s=0.2, max_delay_s=1.0),
            disconnect=DisconnectPolicy(lost_after_s=1.0),
        )

    return Job(key, kind, 1, None, _finishes(str(value).encode()), draft)


KINDS: Final[dict[str, tuple[int, Callable[[random.Random, str, str], Job]]]] = {
    "short": (12, _short),
    "children": (2, _children),
    "failing": (3, _failing),
    "trying": (2, _trying),
    "restarting": (2, _restarting),
    "service": (2, _service),
    "long": (4, _long),
    "stubborn": (2, _stubborn),
    "polite": (2, _polite),
    "limited": (1, _limited),
    "lonely": (2, _lonely),
    "staying": (2, _staying),
    "never": (1, _never),
    "missing": (1, _missing),
    "bad": (1, _bad),
    "number": (4, _number),
    "writer": (4, _writer),
}
"""Name to how often, compared with the others, and how one is made."""
