"""The server: a port, deadlines for what clients send, and an end that loses nothing."""

import asyncio
import gc
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from handful.engine.cost import keep_memory
from handful.errors import UserError
from handful.http.connections import MOST, Connection

KEEP_ALIVE = 75
"""Seconds for which an idle connection stays open; clients keep theirs for a shorter time."""
ENDING = 8
"""Seconds in which accepted requests are finished when the server ends."""
CLOSING = 1
"""Seconds after these, in which threads end that nobody waits for; and after which the process does, see `end_soon`."""
DOORS = 64
"""Listeners at one port: at each turn of the event loop, which takes long under load, each lets one client in."""
FILES = MOST + 4 * DOORS
"""Files that a server may have open: connections, listeners, the store's, and some to spare."""
LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    port: 0 for any that is free.
    behind_proxy: whether another host than this one may be named without TLS.
    certificate, key: files of TLS, both or none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    behind_proxy: bool = False
    certificate: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """Raise `UserError` for an address at which keys would be sent in the open, or files of TLS that are none."""
        if (self.certificate is None) != (self.key is None):
            raise UserError("TLS needs a certificate and its key.", hint="Set both {tls_cert} and {tls_key}.")
        if self.host not in LOCAL and self.certificate is None and not self.behind_proxy:
            raise UserError(
                f"At {self.host}, others could read the keys of clients.",
                hint="Give {tls_cert} and {tls_key}, or {behind_proxy} if your proxy has them.",
            )
        if self.certificate is not None and self.key is not None:
            check_tls(self.certificate, self.key)

    def bound(self) -> socket.socket:
        """A socket at this address; `UserError` if there can be none."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except (OSError, OverflowError) as error:
            listener.close()
            raise UserError(
                f"Cannot listen at {self.host}:{self.port}: {getattr(error, 'strerror', None) or error}.",
                hint="Choose another {host} or {port}, or stop the process that listens there.",
            ) from error
        return listener

    def url(self, listener: socket.socket) -> str:
        """What clients call it."""
        host, port = listener.getsockname()[:2]
        return f"http{'s' if self.certificate else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def check_tls(certificate: Path, key: Path) -> None:
    """Raise `UserError` if these files cannot be read, or are no certificate and its key."""
    for file, hint in ((certificate, "Check {tls_cert}."), (key, "Check {tls_key}.")):
        try:
            file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}).", hint=hint) from error
    chain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        chain.load_verify_locations(certificate)
    except ssl.SSLError as error:
        raise UserError(f"{certificate} is not a certificate in PEM format.", hint="Check {tls_cert}.") from error
    try:
        chain.load_cert_chain(certificate, key, password="")  # nobody is there to type one
    except ssl.SSLError as error:
        if error.reason is None:  # OpenSSL does not say why
            raise UserError(
                f"{key} is not a private key in PEM format without a password.", hint="Check {tls_key}."
            ) from error
        reason = error.reason.lower().replace("_", " ")
        raise UserError(
            f"{certificate} and {key} cannot be used for TLS ({reason}).", hint="Check {tls_cert} and {tls_key}."
        ) from error


def run(app: FastAPI, listener: socket.socket, address: Address, on_start: Callable[[], None] | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish those that were accepted, and return.

    address: that was checked.
    on_start: called as soon as requests are answered.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # what clients do wrong has its line in our log
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing depends on who a client is
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=ENDING,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    keep_memory()
    allow_files()
    gc.collect()
    gc.freeze()  # else each collection goes through all that was imported, which takes as long as a hundred requests
    _Server(config, app, on_start).run([listener, *(listener.dup() for _ in range(DOORS - 1))])


def allow_files() -> None:
    """Allow this process as many open files as `MOST` connections need, if the system lets it raise its limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def end_soon(seconds: float = CLOSING) -> None:
    """End this process in so many seconds, where it does not end before: a thread that hangs would hold it for ever.

    What the store has acknowledged is durable, whatever thread is cut off.
    """
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


class _Server(uvicorn.Server):
    """Ends at the first signal when all is done, and at the second one at once, which the store survives."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_start: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._app, self._on_start = app, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what is there now stays: looking through it for garbage stops all threads for half a second
        if self._on_start is not None:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # of clients that read slowly, or not at all
            assert isinstance(connection, Connection), "the configuration says so"
            connection.end()
        await asyncio.sleep(0)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        self._app.state.ready, self._app.state.until = False, time.monotonic() + ENDING + CLOSING
        self.should_exit = True
