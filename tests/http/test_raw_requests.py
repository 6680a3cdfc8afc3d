"""Bytes that are no proper HTTP: refused or closed, never taken for two requests, and without harm to others."""

import contextlib
import random
import re
import time

import pytest
from tests.http.hostile import STATUSES
from tests.http.processes import KEY, serving

from serving.worlds import classifier

HEAD = (
    f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n".encode()
)
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
SECOND = b"DELETE /v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n"
"""A request hidden behind another one; it would be answered with 405."""
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"

CASES = {
    # smuggling: one refusal, and the connection closes
    "both lengths": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND, [400]),
    "both lengths, the other way": (CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + SECOND, [400]),
    "two lengths": (HEAD + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + SECOND, [400]),
    "a length with a sign": (HEAD + b"Content-Length: +2\r\n\r\n{}" + SECOND, [400]),
    "a negative length": (HEAD + b"Content-Length: -2\r\n\r\n{}" + SECOND, [400]),
    "a list of lengths": (HEAD + b"Content-Length: 2, 2\r\n\r\n{}" + SECOND, [400]),
    "a length that overflows": (HEAD + b"Content-Length: 18446744073709551618\r\n\r\n{}" + SECOND, [400]),
    "a length in hexadecimal": (HEAD + b"Content-Length: 0x2\r\n\r\n{}" + SECOND, [400]),
    "a space before the colon": (HEAD + b"Content-Length : 2\r\n\r\n{}" + SECOND, [400]),
    "an unknown encoding": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SECOND, [400]),
    "chunked is not the last encoding": (
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SECOND,
        [400],
    ),
    "no size of a chunk": (CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n" + SECOND, [400]),
    "a negative size of a chunk": (CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n" + SECOND, [400]),
    "a size of a chunk that overflows": (CHUNKED + b"\r\n10000000000000002\r\n{}\r\n0\r\n\r\n" + SECOND, [400]),
    "a chunk that is longer than it says": (CHUNKED + b"\r\n2\r\n{}{}\r\n0\r\n\r\n" + SECOND, [400]),
    "a trailer": (CHUNKED + b"\r\n2\r\n{}\r\n0\r\nIf-Match: x\r\n\r\n" + SECOND, [400]),
    # heads
    "a NUL in a header": (GET + b"X-A: a\0b\r\n\r\n" + SECOND, [400]),
    "a header without a colon": (GET + b"X-A\r\n\r\n" + SECOND, [400]),
    "a NUL in the path": (b"GET /liv\0ez HTTP/1.1\r\n\r\n" + SECOND, [400]),
    "no version": (b"GET /livez\r\n\r\n", [200]),
    "a later version": (b"GET /livez HTTP/3.0\r\n\r\n" + SECOND, [400]),
    "HTTP/2 without a word": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), [400]),
    "nothing but a colon": (b":\r\n\r\n", [400]),
    "a head without end": (GET + b"X-A: " + b"a" * 100_000, [431]),
    "many headers": (GET + b"X-A: a\r\n" * 9000, [431]),
    "a long path": (b"GET /" + b"a" * 100_000, [431]),
    "many small heads": ((GET + b"\r\n") * 50, [200] * 50),
    # what is no fault
    "an upgrade": (GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", [200]),
    "a proxy's address": (b"GET http://y/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [200]),
    "a tunnel": (b"CONNECT y:443 HTTP/1.1\r\nHost: y\r\n\r\n", [400]),
    # nothing is answered before a request is whole
    "half a line": (b"GET /liv", []),
    "half a head": (GET, []),
    "half a content": (HEAD + b"Content-Length: 100\r\n\r\n{", []),
    "half a chunk": (CHUNKED + b"\r\n5\r\n{}", []),
}


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    with serving(classifier(), tmp_path_factory.mktemp("raw") / "store") as process:
        yield process
        process.end()
        assert process.ended() == 0


def answered(process, contents, seconds=0.5):
    """What comes back on a connection for each of some contents, and whether it was closed."""
    sockets, found = [], []
    for content in contents:
        connection = process.socket()
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)
        sockets.append(connection)
    time.sleep(seconds)
    for connection in sockets:
        came, closed = b"", False
        connection.setblocking(False)
        with connection, contextlib.suppress(BlockingIOError):
            try:
                while part := connection.recv(65536):
                    came += part
            except ConnectionResetError:
                pass
            closed = True
        found.append((came, closed))
    return found


def statuses(came):
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d+) ", came)]


def test_bytes_that_are_no_proper_request_are_refused_and_hide_none(process):
    found = answered(process, [content for content, _ in CASES.values()])
    wanted = {name: statuses for name, (_, statuses) in CASES.items()}
    assert {name: statuses(came) for name, (came, _) in zip(CASES, found, strict=True)} == wanted
    for (_, expected), (came, closed) in zip(CASES.values(), found, strict=True):
        assert closed or expected not in ([400], [431])
        assert b"Traceback" not in came
    with process.client() as good:
        assert good.get("/livez").status_code == 200


def damaged(draw):
    """One of the requests above with some of its bytes changed."""
    content = bytearray(draw.choice(list(CASES.values()))[0][:3000])
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(content))
        match draw.randrange(3):
            case 0:
                content[place] = draw.randrange(256)
            case 1:
                del content[place : place + draw.randint(1, 9)]
            case 2:
                content[place:place] = draw.choice(
                    [b"\r\n", b"\0", b"\n", b" ", b":", b"\r\n\r\n", b"0\r\n\r\n", b"\xff"]
                )
        content = content or bytearray(b"x")
    return bytes(content)


@pytest.mark.slow
def test_damaged_bytes_are_refused_or_answered(process):
    draw = random.Random(0)
    for _ in range(20):
        for came, _ in answered(process, [damaged(draw) for _ in range(50)], seconds=0.3):
            assert {*statuses(came)} <= STATUSES, came[:500]
            assert b"Traceback" not in came
    with process.client() as good:
        assert good.get("/livez").status_code == 200
