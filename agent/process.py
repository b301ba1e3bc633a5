"""The process around the daemon: its logs, its signals, and how it ends.

Secret: what the operating system says to a process and what that means here.
Promise: SIGTERM and SIGINT end in an orderly way, SIGHUP reloads; a crash is in the main log with its traceback, and
the error that was its cause is what `run` raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping

import structlog

from agent.daemon import Daemon
from agent.errors import AgentError
from agent.logbook import opened
from agent.notify import Notifier
from agent.settings import Settings

log = structlog.get_logger("main")


async def run(
    settings: Settings, environ: Mapping[str, str], reread: Callable[[], Settings], *, stop: asyncio.Event | None = None
) -> None:
    """The daemon until SIGTERM, SIGINT, a service stop, or `stop`."""
    notifier = Notifier.from_environ(environ)
    with opened(settings.log) as book:
        for finding in settings.findings:
            log.warning("settings.finding", where=finding.where, reason=finding.text, remedy=finding.remedy)
        allow_many_files()
        daemon = Daemon(settings, book, notifier, environ, reread)
        try:
            async with asyncio.TaskGroup() as tasks:
                hangs = tasks.create_task(_signals(daemon, stop), name="signals")
                await daemon.run()
                hangs.cancel()
        except BaseExceptionGroup as group:
            error = _only(group)
            if not isinstance(error, AgentError | asyncio.CancelledError):
                log.exception("daemon.crashed")
            raise error from None


async def _signals(daemon: Daemon, stop: asyncio.Event | None) -> None:
    """SIGTERM and SIGINT end, SIGHUP reloads; on Windows Ctrl-C and Ctrl-Break end."""
    loop = asyncio.get_running_loop()
    hang_up = asyncio.Event()
    if sys.platform == "win32":
        for number in (signal.SIGINT, signal.SIGBREAK):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(daemon.stop))
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        loop.add_signal_handler(signal.SIGHUP, hang_up.set)
    async with asyncio.TaskGroup() as tasks:
        if stop is not None:
            tasks.create_task(_then(stop.wait(), daemon.stop), name="stop")
        while True:
            await hang_up.wait()
            hang_up.clear()
            await daemon.hang_up()


async def _then(waited: Awaitable[object], act: Callable[[], None]) -> None:
    await waited
    act()


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one failure that matters of a group: TaskGroups nest, and cancel the others because of it."""
    for error in group.exceptions:
        inner = _only(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(inner, asyncio.CancelledError):
            return inner
    return group.exceptions[0]


def allow_many_files() -> None:
    """Each connection is a file: take as many as the system lets us without asking."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
