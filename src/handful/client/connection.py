"""The connection to a server: whom a key is sent to, and how plans are carried out, blocking or awaited."""

import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from time import sleep
from typing import Any, ClassVar, Self, TypeVar

import anyio
import httpx2

from handful import __version__
from handful.client.calls import Call, Plan
from handful.client.content import as_json, as_parts
from handful.client.exchange import LONGEST_DEADLINE, Patience, Reply, Send, Wait
from handful.errors import HandfulError, UserError

Result = TypeVar("Result")

KEEP_ALIVE = 60.0
"""Seconds for which an idle connection is kept: fewer than the server's 75, which closes it else while we send."""


class Connection:
    """A connection to a server, with a key; its arguments are those of `handful.Client`."""

    _opened: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 60.0,
        attempts: int = 6,
        concurrency: int = 8,
        allow_http: bool = False,
        tls: ssl.SSLContext | None = None,
        transport: Any = None,
    ) -> None:
        address = checked_address(url, allow_http=allow_http)
        if not key.isascii() or not key.isprintable() or not key.strip():
            raise UserError("The key is empty or has invalid characters. Check it.", field=("key",))
        self.url = str(address)
        self._patience = Patience(timeout, attempts)
        with _trusting():
            self._http = type(self)._opened(
                base_url=address,
                headers={"Authorization": f"Bearer {key.strip()}", "User-Agent": f"handful/{__version__}"},
                limits=httpx2.Limits(
                    max_connections=concurrency, max_keepalive_connections=concurrency, keepalive_expiry=KEEP_ALIVE
                ),
                verify=True if tls is None else tls,
                trust_env=address.scheme == "https",  # a proxy would see a key that is not encrypted
                follow_redirects=False,
                transport=transport,
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _until(self) -> float:
        return self._patience.now() + self._patience.seconds

    def _request(self, step: Send) -> httpx2.Request:
        call = step.call
        deadline = min(step.seconds, LONGEST_DEADLINE)
        headers = {"X-Request-Timeout-Ms": str(max(1, int(1000 * deadline))), **call.headers()}
        content: dict[str, Any] = {"content": call.content}
        if parts := as_parts(call.body) if call.in_parts else []:
            content = {"files": [(one.name, (one.name, one.content, one.media)) for one in parts]}
        elif call.body is not None:
            content = {"content": as_json(call.body)}
            headers["Content-Type"] = "application/json"
        query = {name: value for name, value in call.query.items() if value is not None}
        return self._http.build_request(  # type: ignore[no-any-return]
            call.method, call.path, params=query, headers=headers, timeout=step.seconds, **content
        )


class Blocking(Connection):
    """Waits for each response. Safe to use from many threads."""

    _opened = httpx2.Client

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _carried_out(self, plan: Plan[Result]) -> Result:
        """What a plan returns."""
        return _driven(plan, partial(self._answers, until=self._until()))

    def _answers(self, calls: Call[Any] | Sequence[Call[Any]], until: float) -> Any:
        """The response of a call, or those of several in their order."""
        if isinstance(calls, Call):
            return _driven(self._patience.exchange(calls, until), self._done)
        return [self._answers(call, until) for call in calls]

    def _done(self, step: Send | Wait) -> Reply | None:
        if isinstance(step, Wait):
            sleep(step.seconds)
            return None
        until = self._patience.now() + step.seconds
        response = self._http.send(self._request(step), stream=True)
        try:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if self._patience.now() > until:
                    raise httpx2.ReadTimeout("the response is too slow")
        finally:
            response.close()
        return Reply(response.status_code, response.headers, bytes(content))


class Awaiting(Connection):
    """Is awaited, in asyncio or trio."""

    _opened = httpx2.AsyncClient

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _carried_out(self, plan: Plan[Result]) -> Result:
        """What a plan returns."""
        return await _driven_awaiting(plan, partial(self._answers, until=self._until()))

    async def _answers(self, calls: Call[Any] | Sequence[Call[Any]], until: float) -> Any:
        """The response of a call, or those of several, sent at once, in their order."""
        if isinstance(calls, Call):
            return await _driven_awaiting(self._patience.exchange(calls, until), self._done)
        answers: list[Any] = [None] * len(calls)
        failed: list[HandfulError] = []

        async def answer(place: int, call: Call[Any]) -> None:
            try:
                answers[place] = await self._answers(call, until)
            except HandfulError as error:
                failed.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for place, call in enumerate(calls):
                group.start_soon(answer, place, call)
        if failed:
            raise failed[0]
        return answers

    async def _done(self, step: Send | Wait) -> Reply | None:
        if isinstance(step, Wait):
            await anyio.sleep(step.seconds)
            return None
        with anyio.move_on_after(step.seconds):
            response = await self._http.send(self._request(step))
            return Reply(response.status_code, response.headers, response.content)
        raise httpx2.ReadTimeout("no response")


@contextlib.contextmanager
def _trusting() -> Iterator[None]:
    """Raise `UserError` if the file that the environment names as certificates to trust cannot be read, or has none."""
    try:
        yield
    except OSError as error:
        why = "it has no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
        raise UserError(
            f"SSL_CERT_FILE names {os.environ.get('SSL_CERT_FILE')}, which cannot be used: {why}. Name a file with the "
            f"server's certificate, or unset the variable."
        ) from error


def checked_address(url: str, *, allow_http: bool) -> httpx2.URL:
    """The address of a server; `UserError` if it is none, or a key would go there unencrypted."""
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"{url!r} is not the address of a server ({error}).", field=("url",)) from error
    if address.scheme not in ("http", "https") or not address.host:
        raise UserError(f"{url!r} is not the address of a server. Write it as https://HOST.", field=("url",))
    if address.userinfo or address.query or address.fragment:
        raise UserError(
            "The address of a server must not have a user, query or fragment, since addresses are logged. Pass the key "
            "separately.",
            field=("url",),
        )
    if address.scheme == "http" and not allow_http and not _of_this_machine(address.host):
        raise UserError(
            f"The key would be sent to {address.host} without encryption. Use an address with https.",
            field=("url",),
            hint="If the network is trusted, allow it with {allow_http}.",
        )
    return address


def _of_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _driven(steps: Generator[Any, Any, Result], do: Callable[[Any], Any]) -> Result:
    """What a generator returns whose steps are done one after another; their errors are raised in it."""
    try:
        step = next(steps)
        while True:
            try:
                done = do(step)
            except (HandfulError, httpx2.TransportError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _driven_awaiting(steps: Generator[Any, Any, Result], do: Callable[[Any], Awaitable[Any]]) -> Result:
    """The same, where steps are awaited."""
    try:
        step = next(steps)
        while True:
            try:
                done = await do(step)
            except (HandfulError, httpx2.TransportError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
