"""Uploads: skipped, resumed, shared, damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerm_core.client import BlobSource, task, wasm
from edgerm_core.client.blobs import UPLOAD_ATTEMPTS
from edgerm_core.errors import BlobError
from edgerm_core.ids import TaskId, blob_id
from edgerm_core.limits import BLOB_CHUNK_BYTES, BLOB_WINDOW_CHUNKS
from edgerm_core.messages import BlobData, BlobOffer, BlobState, Failed, Submit, Submitted
from edgerm_core.tasks import TaskState
from tests.core.client.conftest import PeerScript, ScriptedMaster, connected, doing, update

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 4096  # 1 MiB: sixteen pieces.


async def take(peer: PeerScript, received: bytearray, pieces: int | None = None) -> None:
    """Play the master's side of an upload until the blob, or so many pieces, have arrived."""
    count = 0
    while pieces is None or count < pieces:
        data = await peer.expect(BlobData)
        assert data.offset == len(received)
        assert len(data.data) <= BLOB_CHUNK_BYTES
        received += data.data
        count += 1
        await peer.send(BlobState(data.request_id, data.blob, len(received), data.size))
        if len(received) == data.size:
            return


async def test_a_file_is_uploaded_in_pieces(master: ScriptedMaster, tmp_path: Path) -> None:
    path = tmp_path / "module.wasm"
    path.write_bytes(CONTENT)
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.upload(path)) as call:
            offer = await peer.expect(BlobOffer)
            assert (offer.blob, offer.size) == (blob_id(CONTENT), len(CONTENT))
            await peer.send(BlobState(offer.request_id, offer.blob, 0, offer.size))
            received = bytearray()
            await take(peer, received)
        assert await call.value() == blob_id(CONTENT)
        assert received == CONTENT


async def test_what_the_master_has_is_not_sent_again_nor_asked_about_twice(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.upload(CONTENT)) as call:
            offer = await peer.expect(BlobOffer)
            await peer.send(BlobState(offer.request_id, offer.blob, offer.size, offer.size))
        await call.value()
        await framework.upload(CONTENT)
        await peer.expect_nothing()


async def test_no_more_than_a_window_is_on_its_way(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.upload(CONTENT)) as call:
            offer = await peer.expect(BlobOffer)
            await peer.send(BlobState(offer.request_id, offer.blob, 0, offer.size))
            received = bytearray()
            for _ in range(BLOB_WINDOW_CHUNKS):
                received += (await peer.expect(BlobData)).data
            await peer.expect_nothing()
            for n in range(BLOB_WINDOW_CHUNKS):
                have = (n + 1) * BLOB_CHUNK_BYTES
                await peer.send(BlobState(offer.request_id, offer.blob, have, offer.size))
            await take(peer, received)
        await call.value()
        assert received == CONTENT


async def test_an_upload_cut_off_goes_on_where_the_master_stands(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.upload(CONTENT)) as call:
            offer = await peer.expect(BlobOffer)
            await peer.send(BlobState(offer.request_id, offer.blob, 0, offer.size))
            received = bytearray()
            await take(peer, received, pieces=3)
            await peer.drop()
            peer = await master.accept_framework()
            again = await peer.expect(BlobOffer)
            await peer.send(BlobState(again.request_id, again.blob, len(received), again.size))
            await take(peer, received)
        await call.value()
        assert received == CONTENT


async def test_the_same_blob_asked_for_twice_at_once_is_uploaded_once(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        async with (
            doing(lambda: framework.upload(CONTENT)) as first,
            doing(lambda: framework.upload(CONTENT)) as second,
        ):
            offer = await peer.expect(BlobOffer)
            await peer.send(BlobState(offer.request_id, offer.blob, 0, offer.size))
            await take(peer, bytearray())
        assert await first.value() == await second.value()
        await peer.expect_nothing()


async def test_pieces_that_another_uploader_overtook_are_sent_from_where_the_master_stands(
    master: ScriptedMaster,
) -> None:
    """Two uploaders of one blob take turns; when the other one dies, ours must not wait for ever."""
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.upload(CONTENT)) as call:
            offer = await peer.expect(BlobOffer)
            await peer.send(BlobState(offer.request_id, offer.blob, 0, offer.size))
            half = BLOB_CHUNK_BYTES // 2
            for _ in range(BLOB_WINDOW_CHUNKS):
                await peer.expect(BlobData)
            # The other one's half piece is there, so that none of ours begins where it ends.
            received = bytearray(CONTENT[:half])
            for _ in range(BLOB_WINDOW_CHUNKS):
                await peer.send(BlobState(offer.request_id, offer.blob, half, offer.size))
            data = await peer.expect(BlobData)
            while data.offset != half:
                await peer.send(BlobState(offer.request_id, offer.blob, half, offer.size))
                data = await peer.expect(BlobData)
            received += data.data
            await peer.send(BlobState(offer.request_id, offer.blob, len(received), offer.size))
            await take(peer, received)
        await call.value()
        assert received == CONTENT


async def test_a_damaged_upload_is_tried_again_and_then_given_up(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.upload(b"small")) as call:
            for _ in range(UPLOAD_ATTEMPTS):
                offer = await peer.expect(BlobOffer)
                await peer.send(BlobState(offer.request_id, offer.blob, 0, offer.size))
                data = await peer.expect(BlobData)
                await peer.send(Failed(data.request_id, "spec", "the upload has another hash"))
        with pytest.raises(BlobError, match="the upload has another hash"):
            await call.value()


async def test_a_blob_too_large_for_the_master_is_told(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.upload(b"x")) as call:
            offer = await peer.expect(BlobOffer)
            await peer.send(Failed(offer.request_id, "spec", "larger than the 1 MiB this master takes"))
        with pytest.raises(BlobError, match="larger than"):
            await call.value()


async def test_submit_uploads_what_the_builders_refer_to_before_it_submits(master: ScriptedMaster) -> None:
    module = b"\0asm" + bytes(100)
    draft = task(wasm(module, function="f"), files={"data.bin": b"input"})
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.submit(draft)) as call:
            for content in (module, b"input"):
                offer = await peer.expect(BlobOffer)
                assert offer.blob == blob_id(content)
                await peer.send(BlobState(offer.request_id, offer.blob, offer.size, offer.size))
            request = await peer.expect(Submit)
            assert request.specs[0].blobs() == {blob_id(module), blob_id(b"input")}
            await peer.send(Submitted(request.request_id, ((TaskId(1),),)))
        await call.value()
        # The master has thrown the module away since; the task waits for it and we bring it again.
        await peer.send(update(1, 2, TaskState.PENDING, reason="waiting-for-blob"))
        asked = {(await _offer_and_take(peer)).blob for _ in range(2)}
        assert asked == {blob_id(module), blob_id(b"input")}


async def _offer_and_take(peer: PeerScript) -> BlobOffer:
    offer = await peer.expect(BlobOffer)
    await peer.send(BlobState(offer.request_id, offer.blob, offer.size, offer.size))
    return offer


async def test_a_missing_file_is_named(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, _):
        with pytest.raises(BlobError, match=r"nowhere\.bin cannot be read: No such file"):
            await framework.upload("nowhere.bin")


async def test_a_file_that_shrank_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    source = BlobSource.of(path)
    assert await source.read(4, 3) == b"456"
    path.write_bytes(b"012")
    with pytest.raises(BlobError, match="became shorter"):
        await source.read(4, 3)
    assert (source.size, source.id) == (10, blob_id(b"0123456789"))
