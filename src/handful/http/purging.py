"""What the server does by itself every hour: erase what was deleted long ago."""

import asyncio
import logging
from typing import NoReturn

from handful.http.calls import Server
from handful.serving.batcher import LONGEST
from handful.serving.log_lines import log_line

EVERY = 3600
"""Seconds between two times."""

log = logging.getLogger("handful.http")


async def purge_hourly(server: Server) -> NoReturn:
    """Purge the store now and every hour; see `Service.purge`. What goes wrong is in the log, and tried again."""
    while True:
        try:
            await server.batcher.look("", server.service.purge, deadline=LONGEST)
        except Exception:
            log.exception(log_line("error", work="purge"))
        await asyncio.sleep(EVERY)
