"""Tenants: made, and looked up."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from handful.errors import UserError
from handful.serving.directory import DEFAULT, EVERYONE
from handful.serving.records import Tenant
from handful.serving.requests import Request, Requests
from handful.serving.rows import Rows
from handful.serving.store import Store

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
"""Names that are the same in a log, a file and a command."""


class Tenants:
    """The tenants of a store. The tenant "default" exists always.

    now: the time in milliseconds.
    """

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store, self._now = store, now
        self._requests = Requests(store, now, lambda rows, answer: rows.directory.tenant(answer["tenant"]))

    def create(
        self, name: str, *, actor: str = "local", asker: str = DEFAULT, idempotency_key: str | None = None
    ) -> Tenant:
        """Add a tenant.

        name: 1 to 63 small letters, digits, dots, hyphens and underscores, of which a letter or digit is the first.
        actor: who is named in the audit of the tenant.
        asker: the tenant that asks for it.
        idempotency_key: a request of that tenant with the same one within 24 hours finds the tenant that was made.

        Raises `UserError` for another name, one that is taken, and an idempotency key of another request.
        """
        if not NAME.fullmatch(name):
            raise UserError(
                f"The name of a tenant has 1 to 63 characters a-z, 0-9, '.', '-' or '_', and begins with a letter or "
                f"digit, unlike {name!a:.80}.",
                field=("name",),
            )

        def work(rows: Rows, request: Request[Tenant]) -> Tenant:
            if rows.directory.tenants(1, ""):
                raise UserError(f"A tenant {name!r} already exists. Choose another name.", code="name-taken")
            at = self._now()
            rows.directory.insert_tenant(at)
            rows.log(at, actor, "tenant-created", name, None)
            request.keep(rows, {"tenant": name}, at)
            return rows.directory.tenant(name)

        with self._requests.once(asker, idempotency_key, "tenant", name) as request:
            return request.earlier or self._store.write(name, partial(work, request=request))

    def get(self, name: str) -> Tenant:
        """A tenant; `UserError` if it does not exist."""
        with self._store.reading(EVERYONE) as rows:
            return rows.directory.tenant(name)

    def list(self, *, limit: int = 100, after: str = "") -> Sequence[Tenant]:
        """Tenants by name.

        after: the last one seen.
        """
        with self._store.reading(EVERYONE) as rows:
            return rows.directory.tenants(limit, after)

    def each(self) -> Iterator[str]:
        """The names of all tenants."""
        after = ""
        while page := self.list(limit=1000, after=after):
            yield from (one.name for one in page)
            after = page[-1].name
