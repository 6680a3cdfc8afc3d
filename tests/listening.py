"""A server of this process on a port of this machine, with or without TLS."""

import contextlib
import shutil
import socket
import subprocess
import threading

import pytest
import uvicorn


@contextlib.contextmanager
def listening(application, **tls):
    """The address of an ASGI application. tls: ssl_certfile and ssl_keyfile, or nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1, **tls)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def tls_files(folder):
    """A certificate of this machine that it signed itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes certificates")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", *made, *files], check=True, capture_output=True)
    return certificate, key
