"""A service behind HTTP in this process, for tests."""

import asyncio

import httpx2

from handful.http.app import make_app


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
