"""The gateway's state machine: what a device and the master see of it."""

from __future__ import annotations

import pytest

from edgerm_core.codec import decode_batch, encode
from edgerm_core.gateway import effects, events
from edgerm_core.ids import BlobId, FrameworkId, SessionId, TaskId, blob_id
from edgerm_core.messages import (
    Acknowledge,
    BlobData,
    BlobGet,
    Heartbeat,
    HeartbeatAck,
    Inventory,
    Kill,
    Launch,
    LogData,
    LogGet,
    LogStream,
    RefusalCode,
    Refused,
    Register,
    Registered,
    Relayed,
    RelayOpen,
    StatusUpdate,
    Submit,
    TaskReport,
    TaskUsage,
    Usage,
)
from edgerm_core.resources import Resources
from edgerm_core.tasks import File, Implementation, Reason, TaskState
from edgerm_core.testing.gateways import CONFIG, GatewayBench, a_register

T1 = TaskId(1)


def a_launch(attempt: int = 1, **fields: object) -> Launch:
    return Launch(T1, attempt, FrameworkId("f"), "job", Implementation("test"), **fields)  # type: ignore[arg-type]


def update(
    seq: int, state: TaskState = TaskState.RUNNING, attempt: int = 1, **fields: object
) -> StatusUpdate:
    return StatusUpdate(T1, attempt, seq, state, **fields)  # type: ignore[arg-type]


@pytest.fixture
def bench() -> GatewayBench:
    """A gateway that has its uplink."""
    bench = GatewayBench()
    bench.open_uplink()
    return bench


@pytest.fixture
def alone() -> GatewayBench:
    """A gateway that has met its master and lost it."""
    bench = GatewayBench()
    bench.open_uplink()
    bench.close_uplink()
    return bench


def registered(bench: GatewayBench, name: str = "d1", **fields: object) -> tuple[SessionId, int]:
    """Register a device, with the master too; return its connection and its channel."""
    session = bench.device(name, **fields)  # type: ignore[arg-type]
    (channel,) = bench.take_in()
    bench.inboxes[session].clear()
    return session, channel


def back(bench: GatewayBench) -> int:
    """Let the uplink come back; return the channel of the only device."""
    bench.open_uplink()
    (opened,) = bench.take_up(RelayOpen)
    return opened.channel


# --- registering ----------------------------------------------------------------------------------


def test_a_device_is_taken_in_at_once_and_the_master_hears_of_it(bench: GatewayBench) -> None:
    session = bench.device("d1", max_message_bytes=1024)
    assert bench.inbox(session, Registered) == [Registered(1, 10.0, 35.0, "m")]
    assert bench.take_up(RelayOpen) == [RelayOpen(1, "bench:1", 1024, 0.0)]
    (register,) = bench.relayed(1)
    assert isinstance(register, Register)
    assert (register.info.id, register.incarnation, register.max_message_bytes) == ("d1", "i1", 1024)


def test_what_a_process_of_before_said_comes_late_and_changes_nothing(bench: GatewayBench) -> None:
    """It died while its transport repeated its registration. Its successor was told to stop for good."""
    old = bench.connect()
    session = bench.device("d1", incarnation="i2")
    bench.say(old, a_register("d1", incarnation="i1"))
    assert bench.closed.keys() == {old}
    refused = bench.closed[old].refused
    assert refused is not None
    assert refused.code == RefusalCode.SESSION_REPLACED
    bench.say(session, Heartbeat())
    assert bench.inbox(session, HeartbeatAck)


def test_a_constrained_device_gets_a_cadence_of_its_own(alone: GatewayBench) -> None:
    session = alone.device("d1", attributes={"link.class": "constrained"})
    (answer,) = alone.inbox(session, Registered)
    assert (answer.heartbeat_s, answer.lease_s, answer.master_id) == (60.0, 185.0, "m")


def test_the_masters_cadence_is_passed_on_where_it_differs(bench: GatewayBench) -> None:
    session = bench.device()
    bench.take_in(heartbeat_s=20.0, lease_s=65.0)
    assert bench.inbox(session, HeartbeatAck) == [HeartbeatAck(20.0, 65.0)]
    bench.master(1, HeartbeatAck(40.0, 125.0), HeartbeatAck())
    assert bench.inbox(session, HeartbeatAck) == [HeartbeatAck(40.0, 125.0)]


def test_without_a_master_ever_met_devices_are_asked_to_come_back() -> None:
    """Registered without the master's id would make a device with tasks stop them all."""
    bench = GatewayBench()
    session = bench.device()
    refused = bench.closed[session].refused
    assert refused is not None
    assert refused.code == RefusalCode.NO_MASTER


@pytest.mark.parametrize(
    ("register", "code"),
    [
        (Register((7, 9), a_register().info, "b", "i"), RefusalCode.VERSION),
        (a_register("../../etc"), RefusalCode.MALFORMED),
        (a_register("gw"), RefusalCode.DUPLICATE_AGENT),
    ],
)
def test_who_cannot_be_taken_in_is_told_why(bench: GatewayBench, register: Register, code: str) -> None:
    session = bench.connect()
    bench.say(session, register)
    refused = bench.closed[session].refused
    assert refused is not None
    assert refused.code == code
    assert not bench.take_up(RelayOpen)


def test_more_devices_than_allowed_are_refused_until_there_is_room(bench: GatewayBench) -> None:
    bench = GatewayBench(type(CONFIG)(max_devices=1))
    bench.open_uplink()
    first, second = bench.device("d1"), bench.device("d2")
    assert first not in bench.closed
    refused = bench.closed[second].refused
    assert refused is not None
    assert refused.code == RefusalCode.LIMIT


def test_a_greeting_must_come_first_and_in_time(bench: GatewayBench) -> None:
    hasty, slow = bench.connect(), bench.connect()
    bench.say(hasty, Heartbeat())
    bench.pass_time(11)
    for session in (hasty, slow):
        refused = bench.closed[session].refused
        assert refused is not None
        assert refused.code == RefusalCode.UNEXPECTED


def test_what_is_not_for_agents_ends_the_connection(bench: GatewayBench) -> None:
    session, channel = registered(bench)
    bench.say(session, Submit(1, (), ()), Heartbeat())
    refused = bench.closed[session].refused
    assert refused is not None
    assert refused.code == RefusalCode.UNEXPECTED
    assert [close.channel for close in bench.closes()] == [channel]


def test_a_second_connection_of_the_same_process_takes_over_quietly(bench: GatewayBench) -> None:
    old, channel = registered(bench)
    new = bench.device()
    assert bench.closed[old].refused is None
    assert bench.inbox(new, Registered)
    assert not bench.take_up(RelayOpen), "the channel goes on"
    assert [type(m) for m in bench.relayed(channel)] == [Register]


def test_a_new_process_takes_over_on_a_new_channel(bench: GatewayBench) -> None:
    old, channel = registered(bench)
    bench.device(incarnation="i2")
    refused = bench.closed[old].refused
    assert refused is not None
    assert refused.code == RefusalCode.SESSION_REPLACED
    assert [close.channel for close in bench.closes()] == [channel]
    assert [opened.channel for opened in bench.take_up(RelayOpen)] == [2]


def test_a_second_machine_with_the_id_waits_until_the_first_has_gone(bench: GatewayBench) -> None:
    first, _ = registered(bench)
    second = bench.device(incarnation="i2", boot_id="b2")
    refused = bench.closed[second].refused
    assert refused is not None
    assert refused.code == RefusalCode.DUPLICATE_AGENT
    bench.lose(first)
    assert bench.device(incarnation="i2", boot_id="b2") not in bench.closed


def test_registrations_after_an_outage_come_in_bounded_batches(
    alone: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_core.gateway.uplink.REGISTRATION_WINDOW", 2)
    for number in range(5):
        alone.device(f"d{number}")
    alone.pass_time(4)
    alone.open_uplink()
    assert [opened.age_s for opened in alone.up if isinstance(opened, RelayOpen)] == [4.0, 4.0]
    assert len(alone.take_in()) == 2
    assert len(alone.take_in()) == 2
    assert len(alone.take_in()) == 1


# --- the lease ------------------------------------------------------------------------------------


def test_heartbeats_are_answered_here_and_told_in_one_number(bench: GatewayBench) -> None:
    (first, _), (second, _) = registered(bench, "d1"), registered(bench, "d2")
    registered(bench, "d3")
    bench.say(first, Heartbeat())
    bench.say(second, Heartbeat(), Usage((TaskUsage(T1, 1, 5),)))
    assert bench.inbox(first, HeartbeatAck) == [HeartbeatAck()]
    assert bench.relayed(1) == []
    assert [type(m) for m in bench.relayed(2)] == [Usage]
    bench.pass_time(10)
    assert bench.take_up(Heartbeat) == [Heartbeat((1,))], "what was relayed says as much"
    bench.pass_time(10)
    assert bench.take_up(Heartbeat) == [], "nobody was heard"


def test_devices_are_told_for_how_long_the_master_has_been_away(bench: GatewayBench) -> None:
    session, _ = registered(bench)
    bench.close_uplink()
    bench.pass_time(20, session, every_s=10)
    assert bench.inbox(session, HeartbeatAck) == [HeartbeatAck(away_s=10.0), HeartbeatAck(away_s=20.0)]
    bench.lose(session)
    session = bench.device()
    assert bench.inbox(session, Registered)[0].away_s == 20.0
    bench.open_uplink()
    bench.say(session, Heartbeat())
    assert bench.inbox(session, HeartbeatAck) == [HeartbeatAck()]


def test_a_gateway_that_was_started_alone_counts_from_then(alone: GatewayBench) -> None:
    alone.restart()
    session = alone.device()
    assert 0 < alone.inbox(session, Registered)[0].away_s < 1
    alone.pass_time(30, session, every_s=30)
    assert alone.inbox(session, HeartbeatAck)[-1].away_s == 30.0


def test_a_silent_device_leaves_its_channel_to_the_masters_lease(bench: GatewayBench) -> None:
    session, channel = registered(bench)
    bench.pass_time(34)
    assert not bench.closes()
    bench.pass_time(2)
    assert [(c.channel, c.reason) for c in bench.closes()] == [
        (channel, "silent for 35 s, longer than its lease")
    ]
    assert session in bench.closed
    assert not bench.gateway.standins


def test_heartbeats_keep_a_device(bench: GatewayBench) -> None:
    session, _ = registered(bench)
    bench.pass_time(200, session)
    assert not bench.closes()


def test_a_lost_connection_closes_the_channel_and_the_mail_waits(bench: GatewayBench) -> None:
    bench.ready = False
    session, channel = registered(bench)
    bench.master(channel, a_launch(), LogGet(5, T1, LogStream.STDOUT))
    bench.lose(session)
    assert [close.channel for close in bench.closes()] == [channel]
    again = bench.device()
    bench.ready = True
    bench.fetch(again)
    assert [type(m) for m in bench.inboxes[again]] == [Registered, Launch]


# --- orders ---------------------------------------------------------------------------------------


def test_orders_wait_until_the_connection_takes_them(bench: GatewayBench) -> None:
    bench.ready = False
    session, channel = registered(bench)
    bench.master(channel, a_launch())
    bench.master(channel, a_launch(), Acknowledge(TaskId(9), 1, 1))
    bench.master(channel, Kill(T1, 1))
    assert bench.inboxes[session] == []
    bench.fetch(session)
    assert bench.inboxes[session] == [Kill(T1, 1)], "it makes the launch before it needless"


def test_the_master_hears_of_a_run_that_has_only_been_given_to_the_device(bench: GatewayBench) -> None:
    """The device may say nothing of it for long, and the master may have forgotten the device meanwhile."""
    session, channel = registered(bench)
    bench.master(channel, a_launch(2))
    bench.close_uplink()

    def reports() -> list[TaskReport]:
        channel = back(bench)
        (register,) = bench.relayed(channel)
        assert isinstance(register, Register)
        return list(register.tasks)

    assert reports() == [TaskReport(T1, 2, TaskState.STARTING)]
    bench.close_uplink()
    bench.say(session, update(1, attempt=2))
    assert reports() == [TaskReport(T1, 2, TaskState.RUNNING, 0, 1)]
    bench.close_uplink()
    bench.say(session, a_register())
    assert reports() == []


def test_a_launch_of_a_session_that_is_over_is_not_handed_on_in_the_next_one(bench: GatewayBench) -> None:
    """The master says again what shall run, and may have thought better of it."""
    bench.ready = False
    session, channel = registered(bench)
    bench.fetch(session)
    bench.inboxes[session].clear()
    bench.master(channel, Kill(T1, 1), a_launch(2))
    bench.close_uplink()
    channel = back(bench)
    (register,) = bench.relayed(channel)
    assert isinstance(register, Register)
    assert register.tasks == ()
    bench.fetch(session)
    bench.fetch(session)
    assert bench.inbox(session, Kill) == [Kill(T1, 1)]
    assert bench.inbox(session, Launch) == []


def test_a_launch_that_does_not_fit_is_answered_instead_of_the_device(bench: GatewayBench) -> None:
    session, channel = registered(bench, max_message_bytes=300)
    bench.master(channel, a_launch(env={"A": "x" * 300}))
    assert bench.inboxes[session] == []
    (dropped,) = bench.relayed(channel)
    assert isinstance(dropped, StatusUpdate)
    assert (dropped.seq, dropped.state, dropped.reason) == (1, TaskState.DROPPED, Reason.LAUNCH_TOO_LARGE)
    assert "the device takes 300" in dropped.message


def test_blobs_of_a_launch_are_fetched_before_the_device_asks(bench: GatewayBench) -> None:
    _, channel = registered(bench)
    module, file = blob_id(b"module"), blob_id(b"file")
    launch = Launch(
        T1, 1, FrameworkId("f"), "j", Implementation("test", module), files=(File("data", file),)
    )
    bench.master(channel, launch)
    assert [e.blob for e in bench.done if isinstance(e, effects.FetchBlob)] == [module, file]


def test_a_blob_is_served_from_here(bench: GatewayBench) -> None:
    session, channel = registered(bench)
    get = BlobGet(1, blob_id(b"module"), 0, 100)
    bench.say(session, get)
    assert effects.ServeBlob(session, get) in bench.done
    assert bench.relayed(channel) == []
    data = BlobData(1, BlobId(blob_id(b"module")), 0, 6, b"module")
    bench.tell(events.BlobAnswered(session, data))
    assert bench.inbox(session, BlobData) == [data]


# --- status updates -------------------------------------------------------------------------------


def test_while_the_master_listens_acknowledgements_pass_from_end_to_end(bench: GatewayBench) -> None:
    session, channel = registered(bench)
    bench.say(session, update(1), update(2, TaskState.FINISHED))
    assert bench.relayed(channel) == [update(1), update(2, TaskState.FINISHED)]
    bench.say(session, update(1))
    assert bench.relayed(channel) == [], "it is on its way"
    assert bench.inbox(session, Acknowledge) == []
    bench.master(channel, Acknowledge(T1, 1, 2))
    assert bench.inbox(session, Acknowledge) == [Acknowledge(T1, 1, 2)]
    assert bench.gateway.custody.agents() == []
    bench.say(session, update(2, TaskState.FINISHED))
    assert bench.relayed(channel) == [update(2, TaskState.FINISHED)], "that acknowledgement got lost"


def test_what_is_said_before_the_master_has_taken_the_device_in_follows(bench: GatewayBench) -> None:
    session = bench.device()
    bench.say(session, update(1))
    assert [type(m) for m in bench.relayed(1)] == [Register]
    bench.master(1, Registered(1, 10.0, 35.0, "m"))
    assert bench.relayed(1) == [update(1)]


def test_without_the_master_an_update_is_acknowledged_when_the_disk_has_it(alone: GatewayBench) -> None:
    session = alone.device()
    alone.say(session, update(1), update(1))
    assert alone.inbox(session, Acknowledge) == []
    alone.sync()
    assert alone.inbox(session, Acknowledge) == [Acknowledge(T1, 1, 1)]
    alone.say(session, update(1))
    assert alone.inbox(session, Acknowledge) == [Acknowledge(T1, 1, 1)], "the first one got lost"


def test_custody_is_handed_over_in_order_and_kept_until_acknowledged(alone: GatewayBench) -> None:
    session = alone.device()
    alone.say(session, update(1), update(2, TaskState.FINISHED, result=b"42"))
    alone.sync()
    channel = back(alone)
    (register,) = alone.relayed(channel)
    assert isinstance(register, Register)
    assert register.tasks == (TaskReport(T1, 1, TaskState.FINISHED, 0, 2),)
    alone.master(channel, Registered(1, 10.0, 35.0, "m"))
    assert alone.relayed(channel) == [update(1), update(2, TaskState.FINISHED, result=b"42")]
    alone.master(channel, Acknowledge(T1, 1, 1))
    alone.close_uplink()
    channel = back(alone)
    alone.relayed(channel)
    alone.master(channel, Registered(1, 10.0, 35.0, "m"))
    assert alone.relayed(channel) == [update(2, TaskState.FINISHED, result=b"42")]
    alone.master(channel, Acknowledge(T1, 1, 2))
    assert alone.gateway.custody.agents() == []


def test_updates_under_way_when_the_uplink_goes_are_taken_into_custody(bench: GatewayBench) -> None:
    session, _ = registered(bench)
    bench.say(session, update(1))
    bench.close_uplink()
    bench.sync()
    assert bench.inbox(session, Acknowledge) == [Acknowledge(T1, 1, 1)]


def test_what_a_device_has_forgotten_is_still_reported_when_it_registers_again(alone: GatewayBench) -> None:
    session = alone.device(tasks=[TaskReport(T1, 1, TaskState.RUNNING, 0, 1)])
    alone.say(session, update(2, TaskState.FINISHED))
    alone.sync()
    alone.lose(session)
    alone.device()
    (register,) = alone.relayed(back(alone))
    assert isinstance(register, Register)
    assert register.tasks == (TaskReport(T1, 1, TaskState.FINISHED, 0, 2),)


def test_a_run_that_a_restarted_device_has_lost_is_not_reported(alone: GatewayBench) -> None:
    session = alone.device(tasks=[TaskReport(T1, 1, TaskState.STARTING, 0, 1)])
    alone.say(session, update(2))
    alone.sync()
    alone.lose(session)
    alone.device(incarnation="i2")
    (register,) = alone.relayed(back(alone))
    assert isinstance(register, Register)
    assert register.tasks == ()


def test_custody_of_a_device_that_has_gone_is_handed_over_without_it(alone: GatewayBench) -> None:
    session = alone.device()
    alone.say(session, update(1, TaskState.FINISHED))
    alone.sync()
    alone.lose(session)
    alone.open_uplink()
    assert alone.take_up(RelayOpen) == [RelayOpen(1, custody_of="d1")]
    assert alone.relayed(1) == [update(1, TaskState.FINISHED)]
    alone.master(1, Acknowledge(T1, 1, 1))
    assert [close.channel for close in alone.closes()] == [1]
    assert alone.gateway.custody.agents() == []


def test_a_device_that_comes_back_hands_over_its_custody_itself(alone: GatewayBench) -> None:
    session = alone.device()
    alone.say(session, update(1, TaskState.FINISHED))
    alone.sync()
    alone.lose(session)
    alone.open_uplink()
    alone.up.clear()
    alone.device()
    assert [close.channel for close in alone.closes()] == [1]
    (opened,) = alone.take_up(RelayOpen)
    assert (opened.channel, opened.custody_of) == (2, "")
    alone.master(1, Acknowledge(T1, 1, 1))
    assert alone.gateway.custody.agents() == ["d1"], "said on a channel that is closed"


@pytest.mark.parametrize("power_cut", [False, True])
def test_custody_survives_the_gateways_death(alone: GatewayBench, power_cut: bool) -> None:
    session = alone.device()
    alone.say(session, update(1, TaskState.FINISHED))
    alone.sync()
    assert alone.inbox(session, Acknowledge)
    alone.restart(power_cut=power_cut)
    alone.open_uplink()
    assert alone.relayed(1) == [update(1, TaskState.FINISHED)]


def test_what_a_power_cut_takes_had_not_been_acknowledged(alone: GatewayBench) -> None:
    session = alone.device()
    alone.say(session, update(1, TaskState.FINISHED))
    assert alone.inbox(session, Acknowledge) == []
    alone.restart(power_cut=True)
    assert alone.gateway.custody.agents() == []


@pytest.mark.parametrize("synced", [False, True])
def test_numbers_that_a_power_cut_took_from_a_device_are_taken_again(
    alone: GatewayBench, synced: bool
) -> None:
    """Its end got the number of an update that the gateway had: acknowledged, and never heard of."""
    session = alone.device()
    alone.say(session, update(1), update(2, restarts=1), update(3, restarts=2))
    if synced:
        alone.sync()
    alone.lose(session)
    report = TaskReport(T1, 1, TaskState.STARTING, last_seq=1)
    again = alone.device(incarnation="i2", boot_id="b2", tasks=[report])
    alone.say(again, update(2, TaskState.FAILED))
    alone.sync()
    assert alone.inbox(again, Acknowledge) == [Acknowledge(T1, 1, 2)]
    channel = back(alone)
    alone.master(channel, Registered(1, 10.0, 35.0, "m"))
    said = [m for m in alone.relayed(channel) if isinstance(m, StatusUpdate)]
    assert [(each.seq, each.state) for each in said] == [(1, TaskState.RUNNING), (2, TaskState.FAILED)]


def test_where_custody_is_full_the_device_keeps_what_it_says() -> None:
    bench = GatewayBench(type(CONFIG)(custody_bytes=1 << 16))
    bench.open_uplink()
    bench.close_uplink()
    session = bench.device()
    large = update(2, TaskState.FINISHED, result=b"x" * 60_000)
    bench.say(session, large)
    bench.say(session, StatusUpdate(TaskId(2), 1, 1, TaskState.FINISHED, result=b"x" * 60_000))
    bench.sync()
    assert bench.inbox(session, Acknowledge) == [Acknowledge(T1, 1, 2)]


def test_custody_fits_into_the_connection_to_the_master(alone: GatewayBench) -> None:
    """It may be CoAP, whose frames are smaller than what was taken meanwhile."""
    session = alone.device(max_message_bytes=1 << 20)
    for seq in range(1, 9):
        alone.say(session, update(seq, result=b"r" * 400))
    alone.say(session, update(9, TaskState.FINISHED, result=b"r" * 5000))
    alone.sync()
    alone.open_uplink(max_message_bytes=1024)
    (channel,) = alone.take_in()
    alone.master(channel, Registered(1, 10.0, 35.0, "m"))
    frames = alone.take_up(Relayed)
    assert max(len(encode(frame)) for frame in frames) <= 1024
    said = [message for frame in frames for message in decode_batch(frame.data)]
    assert [message.seq for message in said if isinstance(message, StatusUpdate)] == list(range(1, 10))
    last = said[-1]
    assert isinstance(last, StatusUpdate)
    assert (last.state, last.result) == (TaskState.FINISHED, None)
    assert "dropped" in last.message
    alone.master(channel, Acknowledge(T1, 1, 9))
    assert alone.gateway.custody.agents() == []


def test_a_registration_that_the_connection_to_the_master_cannot_carry_keeps_nobody_else_out(
    alone: GatewayBench,
) -> None:
    alone.device("large", attributes={"about": "x" * 1024})
    alone.device("small")
    alone.open_uplink(max_message_bytes=1024)
    assert "large stays unknown" in str(alone.done[-1])
    alone.closes()
    (large, small) = alone.take_up(RelayOpen)
    assert alone.relayed(large.channel) == []
    assert isinstance(alone.relayed(small.channel)[0], Register)
    refused = alone.closed[alone.device("larger", attributes={"about": "x" * 1024})].refused
    assert refused is not None
    assert refused.code == RefusalCode.LIMIT


def test_another_masters_books_void_everything(alone: GatewayBench) -> None:
    session = alone.device()
    alone.say(session, update(1))
    alone.open_uplink("other")
    assert session in alone.closed
    assert alone.closed[session].refused is None
    assert alone.gateway.custody.agents() == []
    assert alone.up == []
    again = alone.device()
    assert alone.inbox(again, Registered)[0].master_id == "other"


# --- what passes through --------------------------------------------------------------------------


def test_logs_pass_through_and_end_with_the_connection(bench: GatewayBench) -> None:
    session, channel = registered(bench)
    bench.master(channel, LogGet(5, T1, LogStream.STDOUT, follow=True))
    assert bench.inbox(session, LogGet)
    bench.say(session, LogData(5, 0, b"hi"), LogData(6, 0, b"nobody asked"))
    assert bench.relayed(channel) == [LogData(5, 0, b"hi")]
    bench.lose(session)
    (end,) = bench.relayed(channel)
    assert isinstance(end, LogData)
    assert (end.request_id, end.end) == (5, True)


def test_streams_stop_when_the_uplink_goes(bench: GatewayBench) -> None:
    session, channel = registered(bench)
    bench.master(channel, LogGet(5, T1, LogStream.STDOUT, follow=True))
    bench.close_uplink()
    assert [get.cancel for get in bench.inbox(session, LogGet)] == [False, True]


def test_a_log_that_does_not_fit_into_the_mailbox_is_ended(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_core.gateway.mailbox.MAILBOX_MESSAGES", 1)
    bench.ready = False
    _, channel = registered(bench)
    bench.fetch(SessionId(1))
    bench.master(channel, Kill(TaskId(3), 1), Kill(T1, 1), LogGet(5, T1, LogStream.STDOUT))
    (end,) = bench.relayed(channel)
    assert isinstance(end, LogData)
    assert end.end


def test_what_a_device_has_now_is_told_and_remembered(bench: GatewayBench) -> None:
    session, channel = registered(bench)
    change = Inventory(totals=Resources.parse("cpus:1"))
    bench.say(session, change)
    assert bench.relayed(channel) == [change]
    bench.close_uplink()
    (register,) = bench.relayed(back(bench))
    assert isinstance(register, Register)
    assert register.info.totals == Resources.parse("cpus:1")


def test_what_changes_while_a_device_is_being_registered_is_told_when_it_is(bench: GatewayBench) -> None:
    """The registration on its way says what it had before."""
    bench.open_uplink()
    session = bench.device()
    change = Inventory(totals=Resources.parse("cpus:1"))
    bench.say(session, change)
    (channel,) = bench.take_in()
    assert bench.relayed(channel) == [change]
    bench.master(channel, Registered(1, 10.0, 35.0, "m"))
    assert not bench.relayed(channel), "once"


# --- refusals and roaming -------------------------------------------------------------------------


def test_a_refusal_is_passed_on_to_the_device(bench: GatewayBench) -> None:
    session, channel = registered(bench)
    refusal = Refused(RefusalCode.REMOVED, "the agent was removed")
    bench.master(channel, refusal)
    assert bench.closed[session].refused == refusal
    assert not bench.gateway.standins
    assert not bench.closes(), "the master has closed it"


def test_a_channel_that_was_replaced_is_not_held_against_the_device(bench: GatewayBench) -> None:
    """SESSION_REPLACED makes an agent stop for good; here it means that the device has roamed."""
    session, channel = registered(bench)
    bench.master(channel, Refused(RefusalCode.SESSION_REPLACED, "a newer connection took over"))
    assert bench.closed[session].refused is None
    assert not bench.gateway.standins


def test_a_channel_that_the_master_closes_without_a_word_makes_the_device_register_again(
    bench: GatewayBench,
) -> None:
    session, channel = registered(bench)
    bench.tell(events.ChannelClosed(channel, "gone"))
    assert bench.closed[session].refused is None
    assert not bench.gateway.standins


def test_frames_of_another_size_need_another_channel(bench: GatewayBench) -> None:
    session, channel = registered(bench, max_message_bytes=1024)
    bench.lose(session)
    bench.closes()
    bench.device(max_message_bytes=256)
    (opened,) = bench.take_up(RelayOpen)
    assert (opened.channel, opened.max_message_bytes) == (channel + 1, 256)
