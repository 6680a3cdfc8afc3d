"""Servers in this process, and clients of them of both kinds, for tests."""

import asyncio
import contextlib
import inspect

import anyio.from_thread
import httpx2

from handful.client.client import AsyncClient, Client

URL = "http://127.0.0.1:8000"


class InProcess(httpx2.BaseTransport):
    """An ASGI application as a blocking client reaches it."""

    def __init__(self, app):
        self.asgi = httpx2.ASGITransport(app, raise_app_exceptions=False)

    def handle_request(self, request):
        async def answered():
            response = await self.asgi.handle_async_request(request)
            content = await response.aread()
            return httpx2.Response(response.status_code, headers=response.headers, content=content)

        return asyncio.run(answered())


class Awaited:
    """An awaited client, whose methods are called as those of a blocking one."""

    def __init__(self, portal, client):
        self.portal, self.client = portal, client

    def __getattr__(self, name):
        def method(*arguments, **named):
            async def result():
                made = getattr(self.client, name)(*arguments, **named)
                return [item async for item in made] if inspect.isasyncgen(made) else await made

            return self.portal.call(result)

        return method


@contextlib.contextmanager
def blocking(app, key):
    """A blocking client."""
    with Client(URL, key, transport=InProcess(app)) as client:
        yield client


@contextlib.contextmanager
def awaited(app, key):
    """An awaited client."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    with anyio.from_thread.start_blocking_portal() as portal:
        client = portal.call(lambda: _made(key, transport))
        yield Awaited(portal, client)
        portal.call(client.aclose)


async def _made(key, transport):
    return AsyncClient(URL, key, transport=transport)
