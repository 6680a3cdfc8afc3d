"""A service behind HTTP in this process, for tests."""

import asyncio
import contextlib

import httpx2
import uvicorn
from uvicorn.server import ServerState

from handful.http.app import make_app
from handful.http.connections import Connection


class Caller:
    """Sends requests to an application without a network, and waits for their answers."""

    def __init__(self, app, key):
        self.app, self.key = app, key

    def __call__(self, method, path, *, key=None, headers=None, **content):
        async def send():
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://handful") as client:
                own = {"authorization": f"Bearer {key or self.key}"} if key != "" else {}
                return await client.request(method, path, headers=own | (headers or {}), **content)

        return asyncio.run(send())


def caller(service):
    """Calls of the first admin of a new service."""
    return Caller(make_app(service), service.keys.first_admin(None).token)


class Wire(asyncio.Transport):
    """One client's connection to an application, without a network.

    sent: the bytes that the server has written. closing: whether it has closed the connection.
    """

    def __init__(self, app):
        super().__init__()
        config = uvicorn.Config(app, http=Connection, log_config=None)
        config.load()
        self.connection, self.sent, self.closing = Connection(config, ServerState(), {}), b"", False
        self._news = asyncio.Event()
        self.connection.connection_made(self)

    def write(self, data):
        self.sent += data
        self._news.set()

    def close(self):
        if not self.closing:
            self.closing = True
            self.connection.connection_lost(None)

    abort = close

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def receive(self, data):
        """Bytes come from the client."""
        self.connection.data_received(data)

    async def answer(self):
        """The next answer."""
        while True:
            head, mark, rest = self.sent.partition(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            headers = [tuple(line.split(": ", 1)) for line in lines]
            length = int(dict(headers).get("content-length", 0))
            if mark and len(rest) >= length:
                self.sent = rest[length:]
                return httpx2.Response(int(status.split()[1]), headers=headers, content=rest[:length])
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 10)


@contextlib.contextmanager
def wired(app):
    """A connection to an application; it ends with the context."""
    wire = Wire(app)
    try:
        yield wire
    finally:
        wire.close()


def written(caller, path, content, **headers):
    """The bytes of a request with some content."""
    own = {"authorization": f"Bearer {caller.key}", "content-type": "application/json"} | headers
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in own.items())]
    return "\r\n".join([*lines, f"content-length: {len(content)}", "", ""]).encode() + content
