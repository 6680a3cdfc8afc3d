"""A server of this process on a port of this machine."""

import contextlib
import socket
import threading

import uvicorn


@contextlib.contextmanager
def listening(application):
    """The address of an ASGI application."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
