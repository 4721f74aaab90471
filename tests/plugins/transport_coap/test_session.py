"""Exchanges: each is carried out once, in order, wherever the device is; and the bell."""

from __future__ import annotations

import anyio
import pytest
from edgerm_transport_coap.config import ACK_RANDOM_FACTOR, ACK_TIMEOUT_S, ANSWER_WAIT_S
from edgerm_transport_coap.message import (
    ACK,
    CON,
    EMPTY,
    GET,
    MORE,
    NON,
    OBSERVE,
    POST,
    RST,
    Message,
    Options,
)

from edgerm_core.errors import ConnectionClosed

from .raw import PATIENCE_S, UNHURRIED_S, Sessions, block1, block2, listening, pass_time, peer_of

pytestmark = pytest.mark.anyio

LONGEST_REPEAT_S = ACK_TIMEOUT_S * ACK_RANDOM_FACTOR
"""Until the first repetition; each pause is twice as long as the one before."""


async def test_an_exchange_is_carried_out_once_and_answered_as_often_as_it_comes(
    sessions: Sessions,
) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        request = peer.request(POST, f"e/{name}?1", payload=b"question")
        peer.send(request)
        assert await connection.receive() == b"question"
        await connection.send(b"answer")
        assert (await peer.answer_to(request)).payload == b"answer"
        for kind in (CON, NON):  # The same datagram, and the same exchange in a new message.
            peer.send(request)
            assert (await peer.answer_to(request)).payload == b"answer"
            again = await peer.ask(POST, f"e/{name}?1", payload=b"question", kind=kind)
            assert again.payload == b"answer"
        assert (await peer.ask(POST, f"e/{name}?2", [(MORE, b"")], b"next")).payload == b""
        assert await connection.receive() == b"next"


async def test_a_late_copy_of_an_old_exchange_changes_nothing(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        for number in (1, 2):
            await peer.ask(POST, f"e/{name}?{number}", [(MORE, b"")], b"%d" % number)
            assert await connection.receive() == b"%d" % number
        assert (await peer.ask(POST, f"e/{name}?1", payload=b"1")).code == 0x89
        assert (await peer.ask(POST, f"e/{name}?4", payload=b"4")).code == 0x89
        assert (await peer.ask(POST, f"e/{name}?3", [(MORE, b"")], b"3")).code == 0x44
        assert await connection.receive() == b"3"


async def test_the_answer_comes_with_the_acknowledgement(sessions: Sessions) -> None:
    async with listening() as listener, peer_of(listener) as peer:
        name = await peer.open()
        answer = await peer.ask(POST, f"e/{name}?1", payload=b"\x81\x03")
        assert (answer.kind, answer.code, answer.payload, answer.options) == (ACK, 0x44, b"\x81\x03", [])
        answer = await peer.ask(POST, f"e/{name}?2", payload=b"\x81\x03", kind=NON)
        assert (answer.kind, answer.payload) == (NON, b"\x81\x03")


@pytest.mark.usefixtures("unhurried")
async def test_nothing_to_say_is_answered_within_a_tenth_of_a_second(sessions: Sessions) -> None:
    assert ANSWER_WAIT_S == 0.1
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        request = peer.request(POST, f"e/{name}?1", payload=b"fire and forget")
        peer.send(request)
        assert await peer.nothing_comes()
        pass_time(UNHURRIED_S)
        answer = await peer.answer_to(request)
        assert (answer.kind, answer.code, answer.payload) == (ACK, 0x44, b"")
        empty = await peer.ask(POST, f"e/{name}?2")
        assert (empty.kind, empty.payload) == (ACK, b"")


async def test_a_frame_that_cannot_be_taken_yet_is_acknowledged_and_answered_later(
    sessions: Sessions,
) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        for number in (1, 2):
            await peer.ask(POST, f"e/{name}?{number}", [(MORE, b"")], b"%d" % number)
        request = peer.request(POST, f"e/{name}?3", payload=b"3")
        peer.send(request)
        empty = await peer.receive()
        assert (empty.kind, empty.code, empty.mid) == (ACK, EMPTY, request.mid)
        peer.send(request)  # It may ask again meanwhile.
        assert (await peer.receive()).code == EMPTY
        assert await connection.receive() == b"1"
        await connection.send(b"now")
        separate = await peer.receive()
        assert (separate.kind, separate.code, separate.payload) == (CON, 0x44, b"now")
        peer.acknowledge(separate)
        assert [await connection.receive() for _ in range(2)] == [b"2", b"3"]


async def test_the_next_request_says_that_a_separate_answer_has_arrived(
    sessions: Sessions,
) -> None:
    """Its acknowledgement was lost: it is not sent again."""
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        for number in (1, 2):
            await peer.ask(POST, f"e/{name}?{number}", [(MORE, b"")], b"%d" % number)
        peer.send(peer.request(POST, f"e/{name}?3", payload=b"3"))
        assert (await peer.receive()).code == EMPTY
        assert await connection.receive() == b"1"
        await connection.send(b"now")
        first = await peer.receive()
        pass_time(LONGEST_REPEAT_S)
        second = await peer.receive()
        assert (first.mid, first.payload) == (second.mid, second.payload)
        peer.send(peer.request(POST, f"e/{name}?4"))
        while (await peer.receive()).mid == first.mid:
            pass
        pass_time(2 * LONGEST_REPEAT_S)
        assert await peer.nothing_comes()


async def test_what_waits_comes_frame_by_frame_and_says_so(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        async with anyio.create_task_group() as group:

            async def send_all() -> None:
                for number in range(3):
                    await connection.send(b"%d" % number)

            group.start_soon(send_all)
            await anyio.wait_all_tasks_blocked()
            answers = []
            for number in range(1, 4):
                answers.append(await peer.ask(POST, f"e/{name}?{number}"))
                await anyio.wait_all_tasks_blocked()
        assert [answer.payload for answer in answers] == [b"0", b"1", b"2"]
        assert [answer.option(MORE) for answer in answers] == [b"", b"", None]


async def test_without_waiting_there_is_room_for_one_frame_and_for_the_answer(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        assert connection.send_nowait(b"first")
        assert not connection.send_nowait(b"second")
        assert (await peer.ask(POST, f"e/{name}?1")).payload == b"first"
        assert connection.send_nowait(b"second")
        request = peer.request(POST, f"e/{name}?2", payload=b"question")
        peer.send(request)
        assert await connection.receive() == b"question"
        assert connection.send_nowait(b"third"), "it takes the place of what goes with the answer"
        assert not connection.send_nowait(b"fourth")
        answer = await peer.answer_to(request)
        assert (answer.payload, answer.option(MORE)) == (b"second", b"")
        with pytest.raises(ValueError, match="too large"):
            connection.send_nowait(bytes(connection.max_message_bytes + 1))
        await connection.close()
        with pytest.raises(ConnectionClosed):
            connection.send_nowait(b"late")


async def test_what_waited_before_the_answer_goes_first_and_the_device_is_told_to_come_back(
    sessions: Sessions,
) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        await connection.send(b"order")
        request = peer.request(POST, f"e/{name}?1", payload=b"question")
        peer.send(request)
        assert await connection.receive() == b"question"
        await connection.send(b"answer")
        answer = await peer.answer_to(request)
        assert (answer.payload, answer.option(MORE)) == (b"order", b"")
        assert (await peer.ask(POST, f"e/{name}?2")).payload == b"answer"


async def test_frames_are_as_long_as_the_device_says(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        await peer.open()
        await peer.open("m=64")
        assert [(await sessions.next()).max_message_bytes for _ in range(2)] == [1024, 64]


async def test_long_frames_go_up_and_down_in_blocks_in_any_order_of_repetition(
    sessions: Sessions,
) -> None:
    frame = bytes(range(256)) * 9
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open("m=4096")
        connection = await sessions.next()
        for number in (0, 1, 0, 1):
            block = frame[1024 * number : 1024 * (number + 1)]
            assert (await peer.ask(POST, f"e/{name}?1", block1(number, True), block)).code == 0x5F
        last = peer.request(POST, f"e/{name}?1", block1(2, False), frame[2048:])
        peer.send(last)
        assert await connection.receive() == frame
        await connection.send(frame)
        got = (await peer.answer_to(last)).payload
        for number in (1, 2, 1):
            answer = await peer.ask(POST, f"e/{name}?1", block2(number))
            assert answer.payload == frame[1024 * number : 1024 * (number + 1)]
            got = got[: 1024 * number] + answer.payload if number >= len(got) // 1024 else got
        assert got == frame
        small = await peer.ask(POST, f"e/{name}?1", block2(3, exponent=2))
        assert small.payload == frame[192:256]
        assert (await peer.ask(POST, f"e/{name}?1", block2(3))).code == 0x80
        peer.send(last)  # All of it comes once more: carried out once.
        assert (await peer.answer_to(last)).payload == frame[:1024]
        assert (await peer.ask(POST, f"e/{name}?2", [(MORE, b"")], b"next")).code == 0x44
        assert await connection.receive() == b"next"


async def test_the_bell_rings_once_until_the_device_comes(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        pushes = [connection.push]
        watch = peer.request(GET, f"e/{name}", [(OBSERVE, b"")])
        peer.send(watch)
        first = await peer.answer_to(watch)
        assert (first.code, first.payload) == (0x45, b"0")
        assert first.option(OBSERVE) is not None
        pushes.append(connection.push)
        assert pushes == [False, True]
        for number, frame in ((1, b"one"), (2, b"three")):
            await connection.send(frame)
            note = await peer.receive()
            assert (note.kind, note.token, note.payload) == (CON, watch.token, b"%d" % len(frame))
            peer.acknowledge(note)
            async with anyio.create_task_group() as group:
                group.start_soon(connection.send, b"more")
                assert await peer.nothing_comes()
                assert (await peer.ask(POST, f"e/{name}?{2 * number - 1}")).payload == frame
            note = await peer.receive()
            peer.acknowledge(note)
            assert (await peer.ask(POST, f"e/{name}?{2 * number}")).payload == b"more"
        deregister = peer.request(GET, f"e/{name}", [(OBSERVE, b"\x01")])
        deregister.token = watch.token
        peer.send(deregister)
        assert (await peer.answer_to(deregister)).option(OBSERVE) is None
        assert not connection.push
        await connection.send(b"nobody listens")
        assert await peer.nothing_comes()


@pytest.mark.parametrize("options", [[], [(OBSERVE, b"\x01")]], ids=["plain", "deregistration"])
async def test_only_the_token_that_observes_ends_an_observation(
    sessions: Sessions, options: Options
) -> None:
    """RFC 7641, section 3.6: neither a plain GET nor another token's deregistration is meant."""
    async with listening(sessions) as listener, peer_of(listener) as peer, peer_of(listener) as other:
        name = await peer.open()
        connection = await sessions.next()
        watch = peer.request(GET, f"e/{name}", [(OBSERVE, b"")])
        peer.send(watch)
        await peer.answer_to(watch)
        assert (await peer.ask(GET, f"e/{name}", options)).payload == b"0"
        request = other.request(GET, f"e/{name}", options)
        request.token = watch.token  # The same, from elsewhere.
        other.send(request)
        assert (await other.answer_to(request)).payload == b"0"
        assert connection.push
        await connection.send(b"ring")
        assert (await peer.receive()).token == watch.token


async def test_nobody_else_can_be_made_to_hear_the_bell(sessions: Sessions) -> None:
    """Whoever knows a session names a victim's address as his own: the victim hears one ping."""
    async with listening(sessions) as listener, peer_of(listener) as peer, peer_of(listener) as victim:
        name = await peer.open()
        connection = await sessions.next()
        watch = victim.request(GET, f"e/{name}", [(OBSERVE, b"")])
        victim.send(watch)
        ping = await victim.receive()
        assert (ping.kind, ping.code) == (CON, EMPTY)
        pushes = [connection.push]
        await connection.send(b"ring")
        assert await victim.nothing_comes()
        # The same datagram from somebody who is there, and says so.
        victim.send(watch)
        ping = await victim.receive()
        victim.send(Message(EMPTY, kind=RST, mid=ping.mid))
        answer = await victim.answer_to(watch)
        assert (answer.code, answer.payload) == (0x45, b"4")
        pushes.append(connection.push)
        assert pushes == [False, True]
        assert (await victim.ask(POST, f"e/{name}?1")).payload == b"ring"
        await connection.send(b"again")
        assert (await victim.receive()).token == watch.token


async def test_observing_a_session_that_has_ended_fetches_what_is_left(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as old, peer_of(listener) as new:
        name = await old.open()
        connection = await sessions.next()
        await connection.send(b"last order")
        await connection.close("enough")
        answer = await new.ask(GET, f"e/{name}", [(OBSERVE, b"")])
        assert (answer.code, answer.payload, answer.option(OBSERVE)) == (0x45, b"10", None)


async def test_a_device_that_rejects_the_bell_is_not_rung_any_more(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        await peer.ask(GET, f"e/{name}", [(OBSERVE, b"")])
        await connection.send(b"x")
        note = await peer.receive()
        peer.send(Message(EMPTY, kind=RST, mid=note.mid))
        with anyio.fail_after(PATIENCE_S):
            while connection.push:  # noqa: ASYNC110 - nobody is told
                await anyio.sleep(0.01)


async def test_a_bell_that_is_not_confirmed_rings_again_until_the_device_comes(
    sessions: Sessions,
) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        await peer.ask(GET, f"e/{name}", [(OBSERVE, b"")])
        await connection.send(b"x")
        notes = []
        for repeats in range(3):
            notes.append(await peer.receive())
            if repeats < 2:
                pass_time(LONGEST_REPEAT_S * (1 << repeats))
        assert len({note.mid for note in notes}) == 1
        request = peer.request(POST, f"e/{name}?1")
        peer.send(request)
        assert (await peer.answer_to(request)).payload == b"x"
        pass_time(4 * LONGEST_REPEAT_S)
        assert await peer.nothing_comes()


async def test_a_sleepy_device_is_not_sent_anything_twice(sessions: Sessions) -> None:
    """It comes every now and then, and says how long that takes."""
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open("t=60")
        connection = await sessions.next()
        await peer.ask(GET, f"e/{name}", [(OBSERVE, b"")])
        for number in (1, 2):
            async with anyio.create_task_group() as group:
                group.start_soon(connection.send, b"order")
                note = await peer.receive()
                pass_time(60)  # Asleep; the note waits at its parent.
                assert await peer.nothing_comes()
                peer.acknowledge(note)
                assert (await peer.ask(POST, f"e/{name}?{number}")).payload == b"order"
        assert await peer.nothing_comes()


async def test_a_device_at_another_address_proves_it_and_goes_on(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as old, peer_of(listener) as new:
        name = await old.open("m=4096")
        connection = await sessions.next()
        watch = old.request(GET, f"e/{name}", [(OBSERVE, b"")])
        old.send(watch)
        await old.answer_to(watch)
        await old.ask(POST, f"e/{name}?1")
        peer_before = connection.peer
        request = new.request(POST, f"e/{name}?2", payload=b"I have moved")
        new.send(request)
        assert await connection.receive() == b"I have moved"
        await connection.send(bytes(500))
        assert (await new.receive()).code == EMPTY
        first = await new.receive()
        assert (first.kind, first.code) == (CON, 0x44)
        assert len(first.payload) <= 64
        new.acknowledge(first)
        got = first.payload
        size = len(got)
        for number in range(1, -(-500 // size)):
            answer = await new.ask(POST, f"e/{name}?2", block2(number, size.bit_length() - 5))
            assert answer.kind == ACK
            got += answer.payload
        assert got == bytes(500)
        assert connection.peer != peer_before
        # Large answers come whole now, and the bell rings here.
        request = new.request(POST, f"e/{name}?3", payload=b"x")
        new.send(request)
        assert await connection.receive() == b"x"
        await connection.send(bytes(800))
        assert len((await new.answer_to(request)).payload) == 800
        await connection.send(b"ring")
        note = await new.receive()
        assert note.token == watch.token
        new.acknowledge(note)


async def test_the_end_comes_after_what_waited_and_with_its_reason(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        await connection.send(b"last order")
        await connection.close("enough")
        with pytest.raises(ConnectionClosed, match="enough"):
            await connection.receive()
        answer = await peer.ask(POST, f"e/{name}?1")
        assert (answer.payload, answer.option(MORE)) == (b"last order", b"")
        for number in (2, 2, 3):
            ended = await peer.ask(POST, f"e/{name}?{number}")
            assert ended.code == 0x84
            assert b"enough" in ended.payload
        assert (await peer.ask(GET, f"e/{name}", [(OBSERVE, b"")])).code == 0x84


async def test_the_bell_says_that_the_session_has_ended(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        name = await peer.open()
        connection = await sessions.next()
        await peer.ask(GET, f"e/{name}", [(OBSERVE, b"")])
        await connection.close("enough")
        note = await peer.receive()
        assert (note.code, note.option(OBSERVE)) == (0x84, None)
        assert b"enough" in note.payload


async def test_a_handler_that_sends_before_it_reads_is_not_stuck(sessions: Sessions) -> None:
    """It waits for an exchange to take what it has, and the exchange for it to read: both go on."""
    async with listening() as listener, peer_of(listener) as peer:
        name = await peer.open()
        got = []
        for number in range(1, 12):
            request = peer.request(POST, f"e/{name}?{number}", [(MORE, b"")], b"%d" % number)
            peer.send(request)
            got.append((await peer.answer_to(request)).payload)
        while len([frame for frame in got if frame]) < 11:
            number += 1
            got.append((await peer.ask(POST, f"e/{name}?{number}")).payload)
        assert [frame for frame in got if frame] == [b"%d" % number for number in range(1, 12)]
