"""A server in a process of its own on a loopback port, forked from this one, which has PyTorch imported already."""

import contextlib
import os
import signal
import socket
import time
import traceback

import httpx2
import pytest

from handful.http import connections, server
from handful.http.app import make_app
from handful.serving.service import Service

KEY = "k" * 43
HEADERS = {"authorization": f"Bearer {KEY}"}


class Process:
    """A server that runs. url: where it is. status: of its end, once it has ended."""

    def __init__(self, child, port):
        self.child, self.port, self.url = child, port, f"http://127.0.0.1:{port}"
        self.status = None

    def client(self):
        return httpx2.Client(base_url=self.url, headers=HEADERS, timeout=20, verify=False)

    def socket(self, sent=b"", **options):
        """A connection on which something was sent."""
        made = socket.socket()
        if "buffer" in options:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["buffer"])
        made.settimeout(20)
        made.connect(("127.0.0.1", self.port))
        made.sendall(sent)
        return made

    def wait(self, seconds=120):
        """Wait until it answers, which takes tens of seconds on a machine that does much else."""
        until = time.monotonic() + seconds
        while True:
            try:
                with self.client() as client:
                    assert client.get("/readyz").status_code == 200
                return
            except httpx2.TransportError:
                assert time.monotonic() < until, "it does not answer"
                assert self.ended(0.02) is None, "it ended by itself"

    def end(self, number=signal.SIGTERM):
        os.kill(self.child, number)

    def ended(self, seconds=20):
        """The exit status, awaited for some time; negative where a signal ended it."""
        until = time.monotonic() + seconds
        while self.status is None and time.monotonic() < until:
            found, status = os.waitpid(self.child, os.WNOHANG)
            if found:
                self.status = os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return self.status


@contextlib.contextmanager
def serving(model, folder, *, head=10.0, body=30.0, answer=30.0, ending=8, prepare=lambda service: None):
    """A process that serves a model, or several by name.

    head, body, answer, ending: its deadlines in seconds. prepare: is called with its service.
    """
    models = model if isinstance(model, dict) else {"points": model}
    listener = server.Address(port=0).bound()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # a client that does not read is soon felt
    child = os.fork()
    if not child:
        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch, Service(models, folder) as service:
                patch.setattr(connections, "HEAD", head)
                patch.setattr(connections, "BODY", body)
                patch.setattr(connections, "ANSWER", answer)
                patch.setattr(server, "ENDING", ending)
                service.keys.first_admin(KEY)
                prepare(service)
                server.run(make_app(service), listener, server.Address())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    process = Process(child, listener.getsockname()[1])
    listener.close()
    try:
        process.wait()
        yield process
    finally:
        if process.status is None:
            process.end(signal.SIGKILL)
            process.ended()
