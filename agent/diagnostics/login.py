"""Whether the server knows us, and the agent that we are to be.

Secret: the token, which serves both checks and is seen by nobody.
Promise: one login; which of the four values is wrong is said; nothing on the server is changed.
"""

from __future__ import annotations

import time
from typing import Final

from agent import __version__
from agent.diagnostics.check import INCOMPLETE, Looked, NotLooked, Outcome
from agent.diagnostics.host import Host
from agent.errors import AgentError, ConfigError, Finding, LinkError, Severity
from agent.net.credentials import Credentials
from agent.net.rest import Rest, ServerRefused
from agent.net.tls import client_context
from agent.protocol.fhir import read_agent

ASK_WITHIN_S: Final = 4.5
_SHOWN: Final = 60
_REFUSALS: Final = {401: "agent.token-refused", 403: "agent.forbidden", 404: "agent.not-found", 410: "agent.deleted"}


class Account:
    """The login of one examination."""

    def __init__(self) -> None:
        self._credentials: Credentials | None = None

    async def log_in(self, host: Host) -> Outcome:
        """The check `credentials`."""
        if host.settings is None or host.route is None:
            return NotLooked(INCOMPLETE)
        server, route = host.settings.server, host.route
        try:
            self._credentials = Credentials(
                server.base_url,
                server.client_id,
                server.client_secret.reveal(),
                proxy=route.proxy(),
                ssl=client_context(route.ca_file),
                user_agent=f"onprem-agent/{__version__}",
                timeout_s=ASK_WITHIN_S,
            )
            began = time.perf_counter()
            await self._credentials.token()
        except ConfigError as error:
            return Looked("", error.findings)
        except LinkError as error:
            wait = "" if error.retry_after_s is None else f", in {error.retry_after_s:.0f} s at the earliest"
            remedy = error.hint or f"try again{wait}; if it stays like this, ask the server's operator"
            return Looked("", (Finding("credentials.no-token", Severity.ERROR, str(error), remedy, server.base_url),))
        took_ms = (time.perf_counter() - began) * 1000
        return Looked(f"the server knows client {server.client_id} ({took_ms:.0f} ms)")

    async def read_agent(self, host: Host) -> Outcome:
        """The check `agent`, after the login."""
        if host.settings is None or host.route is None or self._credentials is None:
            return NotLooked(INCOMPLETE)
        agent_id = host.settings.server.agent_id
        where = f"Agent/{agent_id}"
        rest = Rest(
            host.route.url,
            credentials=self._credentials,
            proxy=host.route.proxy(),
            ssl=client_context(host.route.ca_file),
            user_agent=f"onprem-agent/{__version__}",
            timeout_s=ASK_WITHIN_S,
        )
        try:
            async with rest:
                agent = read_agent(await rest.get(f"fhir/R4/{where}"))
        except ServerRefused as error:
            return Looked("", (_refused(error, where),))
        except ConfigError as error:
            return Looked("", error.findings)
        except AgentError as error:
            remedy = error.hint or "try again; if it stays like this, ask the server's operator"
            return Looked("", (Finding("agent.no-answer", Severity.ERROR, str(error), remedy, where),))
        count = len(agent.channel)
        name = f"'{agent.name[:_SHOWN]}'" if agent.name else "it has no name"
        text = f"{name}, {agent.status[:20]}, {count} channel{'s' * (count != 1)}"
        if agent.status != "off":
            return Looked(text)
        off = "Agent.status is off on the server: all channels are closed"
        return Looked(text, (Finding("agent.off", Severity.WARNING, off, "set Agent.status to active and reload"),))


def _refused(error: ServerRefused, where: str) -> Finding:
    code = _REFUSALS.get(error.status, "agent.refused")
    match error.status:
        case 404 | 410:
            text = "the server has no such agent in the project of this client"
            remedy = "check server.agent_id, and that the client belongs to the agent's project"
        case 403:
            text = "the client may not read this agent"
            remedy = "give the client application an access policy that can read Agent and Endpoint"
        case _:
            text, remedy = str(error), error.hint
    return Finding(code, Severity.ERROR, text, remedy, where)
