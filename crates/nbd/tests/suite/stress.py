"""Parallel unaligned requests through libnbd, checked against a model in memory.

usage: stress.py SOCKET structured|simple SEED

Requests in flight at once never overlap unless both read, so the model knows what each read must give.
"""

import random
import sys

import nbd

ROUNDS = 60
DEPTH = 48
LARGEST = 300_000


def connect(socket, structured):
    handle = nbd.NBD()
    handle.set_export_name("disk")
    handle.set_request_structured_replies(structured)
    if structured:
        handle.add_meta_context("base:allocation")
    handle.connect_unix(socket)
    return handle


def wait(handle, cookies):
    pending = set(cookies)
    while pending:
        done = {cookie for cookie in pending if handle.aio_command_completed(cookie)}
        pending -= done
        if pending and not done:
            assert handle.poll(10_000) != 0, "no reply within 10 s"


def refusals(handle, size, structured):
    """What must fail, must fail, and the connection must live on."""
    handle.set_strict_mode(0)
    failing = [
        lambda: handle.pread(10, size),
        lambda: handle.pread(10, size - 9),
        lambda: handle.pwrite(b"0123456789", size - 9),
        lambda: handle.zero(10, size),
        lambda: handle.trim(10, size),
        lambda: handle.cache(10, size),
        lambda: handle.pwrite(b"", 0),
    ]
    if structured:
        failing.append(lambda: handle.block_status(10, size, lambda *_: 0))
    for number, request in enumerate(failing):
        try:
            request()
        except nbd.Error:
            continue
        raise AssertionError(f"request {number} did not fail")
    handle.set_strict_mode(nbd.STRICT_MASK)


def check_extents(handle, model):
    """The extents add up, and what is told to be zero is zero."""
    at = 0
    while at < len(model):
        found = []
        handle.block_status(len(model) - at, at, lambda _context, _offset, entries, _error: found.extend(entries) or 0)
        for length, flags in zip(found[::2], found[1::2]):
            assert length > 0
            if flags & nbd.STATE_ZERO:
                assert not any(model[at : at + length]), f"not zero at {at}"
            at += length
    assert at == len(model)


def round_of_requests(handles, model, rng, structured):
    """One batch of requests on distinct stretches, over all connections."""
    stretch = len(model) // DEPTH
    started = []
    unfragmented = []
    for slot in rng.sample(range(DEPTH), DEPTH):
        handle = rng.choice(handles)
        start = slot * stretch + rng.randrange(stretch // 2)
        length = rng.randrange(1, min(LARGEST, (slot + 1) * stretch - start))
        kind = rng.choice(["read", "read", "write", "write", "zero", "trim", "cache", "flush"])
        data = None
        if kind == "read":
            data = nbd.Buffer(length)
            if structured and rng.random() < 0.3:
                chunks = []
                cookie = handle.aio_pread_structured(
                    data, start, lambda *chunk, chunks=chunks: chunks.append(chunk[2]) or 0, flags=nbd.CMD_FLAG_DF
                )
                unfragmented.append(chunks)
            else:
                cookie = handle.aio_pread(data, start)
        elif kind == "write":
            data = nbd.Buffer.from_bytearray(bytearray(rng.randbytes(length)))
            cookie = handle.aio_pwrite(data, start, flags=rng.choice([0, nbd.CMD_FLAG_FUA]))
            model[start : start + length] = data.to_bytearray()
        elif kind == "zero":
            flags = rng.choice([0, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO])
            cookie = handle.aio_zero(length, start, flags=flags)
            model[start : start + length] = bytes(length)
        elif kind == "trim":
            # A disk in memory gives zeros for what was trimmed.
            cookie = handle.aio_trim(length, start)
            model[start : start + length] = bytes(length)
        elif kind == "cache":
            cookie = handle.aio_cache(length, start)
        else:
            cookie = handle.aio_flush()
        started.append((handle, cookie, kind, start, length, data))
    for handle in handles:
        wait(handle, [cookie for one, cookie, *_ in started if one is handle])
    assert all(len(chunks) == 1 for chunks in unfragmented)
    for _, _, kind, start, length, data in started:
        if kind == "read":
            assert data.to_bytearray() == model[start : start + length], f"wrong data at {start}, {length}"


def main():
    socket, kind, seed = sys.argv[1:]
    structured = kind == "structured"
    rng = random.Random(int(seed))
    handles = [connect(socket, structured) for _ in range(3)]
    assert all(handle.get_structured_replies_negotiated() == structured for handle in handles)
    size = handles[0].get_size()
    model = bytearray(handles[0].pread(size, 0))
    for number in range(ROUNDS):
        round_of_requests(handles, model, rng, structured)
        if number % 20 == 0:
            refusals(rng.choice(handles), size, structured)
            if structured:
                check_extents(handles[0], model)
    assert handles[1].pread(size, 0) == model, "wrong data at the end"
    for handle in handles:
        handle.shutdown()
    print("ok", ROUNDS * DEPTH, "requests")


main()
