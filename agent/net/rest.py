"""Read resources from the server, and bring it files.

Secret: HTTP: the client library and its errors, bearer tokens on requests, retry hints, the server's clock.
Promise: an answer is JSON or a named error: LinkError when waiting helps, ServerRefused when a person must look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from ssl import SSLContext
from typing import Any, Protocol, Self
from urllib.parse import quote

import aiohttp
import msgspec

from agent.errors import AgentError, Finding, LinkError, Severity
from agent.net.filebody import FileBody
from agent.net.proxy import Proxy

MAX_ANSWER_BYTES = 16 * 1024 * 1024
SKEW_LIMIT_S = 60.0  # a larger difference makes servers refuse tokens
SHOWN_CHARACTERS = 200
MAX_RETRY_AFTER_S = 3600.0  # a server that sends a year must not silence the agent
PROGRESS_WITHIN_S = 60.0  # an upload may take as long as its size needs, but not stand still


class ServerRefused(AgentError):
    """The server understood and said no. `status`: the HTTP status, 3xx or 4xx."""

    def __init__(self, text: str, *, status: int, hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.status = status


class Tokens(Protocol):
    """Where bearer tokens come from."""

    async def token(self) -> str:
        """A token that lives. Raises AgentError."""

    def refused(self) -> str:
        """The server did not take the last token: forget it. Answers what may be the cause, or nothing."""


@dataclass(frozen=True, slots=True)
class ClockSkew:
    """The server's clock and ours, read in the same moment."""

    server: datetime
    ours: datetime

    @property
    def seconds(self) -> float:
        """How far the server is ahead of us; negative: behind."""
        return (self.server - self.ours).total_seconds()

    def finding(self) -> Finding | None:
        """What a person should know, if the clocks are more than a minute apart."""
        if abs(self.seconds) <= SKEW_LIMIT_S:
            return None
        return Finding(
            code="clock.skew",
            severity=Severity.ERROR,
            text=f"the clock here says {self.ours:%Y-%m-%d %H:%M:%S} UTC, the server's says"
            f" {self.server:%Y-%m-%d %H:%M:%S} UTC: {abs(self.seconds):.0f} s apart",
            remedy="set this host's clock (NTP); a server refuses tokens when it differs by more than a minute",
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, whole."""

    status: int
    body: bytes
    retry_after_s: float | None

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            content = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def explanation(self) -> str:
        """What an OperationOutcome or an OAuth error says, shortened; empty if the body is neither."""
        content = self.json()
        issues = content.get("issue")
        issue = issues[0] if isinstance(issues, list) and issues and isinstance(issues[0], dict) else {}
        details = issue.get("details")
        said = (details.get("text") if isinstance(details, dict) else None) or issue.get("diagnostics")
        said = said or content.get("error_description") or content.get("error")
        return said[:SHOWN_CHARACTERS] if isinstance(said, str) else ""


class Http:
    """One HTTP session to one server. `skew`: the clocks at the last answer that had a Date header."""

    def __init__(
        self,
        base_url: str,
        *,
        proxy: Proxy | None = None,
        ssl: SSLContext | None = None,
        user_agent: str = "onprem-agent",
        timeout_s: float = 30.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.base_url = base_url.rstrip("/") + "/"
        self.skew: ClockSkew | None = None
        self._proxy = proxy
        self._ssl = ssl
        self._user_agent = user_agent
        self._timeout_s = timeout_s
        self._now = now
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._session = await self._exit.enter_async_context(
            aiohttp.ClientSession(
                headers={"User-Agent": self._user_agent},
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request to `path` under the base URL. Any status is an answer, but for the proxy's own 407.

        Raises LinkError when no whole answer came.
        """
        try:
            return await self._exchange(method, path, headers, data=form)
        except TimeoutError as error:
            raise LinkError(f"{self.base_url} did not answer within {self._timeout_s:g} s") from error

    async def send_file(self, path: str, file: Path, *, headers: Mapping[str, str], stall_s: float) -> Answer:
        """POST what a file holds, in pieces; for as long as something moves within `stall_s`.

        Raises LinkError when no whole answer came, AgentError when the file cannot be read.
        """
        body = await FileBody.open(file)
        try:
            async with asyncio.timeout(stall_s) as patience:
                headers = {**headers, "Content-Length": str(body.size_bytes)}
                pieces = body.pieces(lambda: patience.reschedule(asyncio.get_running_loop().time() + stall_s))
                return await self._exchange("POST", path, headers, data=pieces, timeout=aiohttp.ClientTimeout())
        except TimeoutError as error:
            raise LinkError(f"the upload to {self.base_url} did not move for {stall_s:g} s") from error
        except LinkError:
            if body.trouble is not None:
                raise body.trouble from None
            raise
        finally:
            await body.close()

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], **more: Any) -> Answer:
        """Raises TimeoutError, and LinkError."""
        url = self.base_url + path.lstrip("/")
        more |= self._through_proxy(headers)
        try:
            async with self._session.request(
                method, url, allow_redirects=False, ssl=self._ssl or True, **more
            ) as response:
                body = await response.content.read(MAX_ANSWER_BYTES + 1)
                while len(body) <= MAX_ANSWER_BYTES and (piece := await response.content.readany()):
                    body += piece
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise self._no_answer(error) from error
        if response.status == 407:
            raise self._proxy_refused(407)
        if len(body) > MAX_ANSWER_BYTES:
            raise LinkError(f"{self.base_url} answered more than {MAX_ANSWER_BYTES // 1024 // 1024} MiB to {path}")
        now = self._now()
        date = _moment(response.headers.get("Date"))
        if date is not None:
            self.skew = ClockSkew(date, now)
        return Answer(response.status, body, _retry_after_s(response.headers.get("Retry-After"), date or now))

    def _through_proxy(self, headers: Mapping[str, str]) -> dict[str, Any]:
        if self._proxy is None:
            return {"headers": headers}
        route: dict[str, Any] = {"headers": headers, "proxy": self._proxy.url}
        if self._proxy.authorization is not None:
            credentials = {"Proxy-Authorization": self._proxy.authorization}
            if self.base_url.startswith("https:"):
                route["proxy_headers"] = credentials  # for the CONNECT; the request inside the tunnel must not carry it
            else:
                route["headers"] = {**headers, **credentials}
        return route

    def _no_answer(self, error: Exception) -> LinkError:
        """Name the trouble in our own words: the library's texts may repeat a proxy URL with its credentials."""
        match error:
            case aiohttp.ClientHttpProxyError():
                return self._proxy_refused(error.status)
            case aiohttp.ClientProxyConnectionError():
                hint = "check the proxy setting and that the proxy runs"
                return LinkError(f"proxy {self._proxy} cannot be reached", hint=hint)
            case aiohttp.ClientConnectorCertificateError():
                hint = "name the hospital's authority in server.ca_file, or check the clock of this host"
                return LinkError(f"the certificate of {self.base_url} is not trusted", hint=hint)
            case aiohttp.ClientSSLError():
                hint = "check that the server speaks TLS 1.2 or newer on this port"
                return LinkError(f"no TLS connection to {self.base_url}", hint=hint)
            case aiohttp.ClientConnectorDNSError():
                hint = "check the host name and this host's DNS"
                return LinkError(f"the host name in {self.base_url} cannot be resolved", hint=hint)
            case aiohttp.ClientConnectorError():
                hint = "check the address, that the server runs, and the firewall"
                trouble = error.os_error.strerror or "connection refused"
                return LinkError(f"cannot connect to {self.base_url}: {trouble}", hint=hint)
            case aiohttp.InvalidURL():
                return LinkError(f"{self.base_url} is no usable address", hint="check the base URL")
        return LinkError(f"the connection to {self.base_url} broke ({type(error).__name__})")

    def _proxy_refused(self, status: int) -> LinkError:
        hint = "check user and password in the proxy setting" if status == 407 else "let the proxy allow this server"
        return LinkError(f"proxy {self._proxy} answered {status}", hint=hint)


class Rest:
    """The server's FHIR resources. Use as a context manager; it owns the HTTP session."""

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Tokens,
        proxy: Proxy | None = None,
        ssl: SSLContext | None = None,
        user_agent: str = "onprem-agent",
        timeout_s: float = 30.0,
    ) -> None:
        self._http = Http(base_url, proxy=proxy, ssl=ssl, user_agent=user_agent, timeout_s=timeout_s)
        self._credentials = credentials

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__()

    @property
    def server_date_skew_s(self) -> float | None:
        """Seconds that the server's clock is ahead of ours, by its last Date header."""
        return None if self._http.skew is None else self._http.skew.seconds

    @property
    def finding(self) -> Finding | None:
        """The clock skew, if it is one to worry about."""
        return None if self._http.skew is None else self._http.skew.finding()

    async def get(self, path: str) -> dict[str, Any]:
        """Read `path`, relative to the base URL, as `fhir/R4/Agent/…`; never from a cache.

        A 401 is tried once more with a new token. Raises ServerRefused, LinkError, and what the credentials raise.
        """
        answer = await self._read(path)
        if answer.status == 401:
            self._credentials.refused()
            answer = await self._read(path)
        return self._judge(path, answer)

    async def upload(self, path: Path, *, content_type: str, filename: str, stall_s: float = PROGRESS_WITHIN_S) -> str:
        """Make a Binary of what a file holds, and give its reference, `Binary/<id>` (FHIR R4 §2.44).

        Memory does not depend on its size. A 401 is tried once more with a new token. Raises ServerRefused, LinkError,
        AgentError when the file cannot be read, and what the credentials raise.
        """
        target = f"fhir/R4/Binary?_filename={quote(filename, safe='')}"
        answer = await self._post_file(target, path, content_type, stall_s)
        if answer.status == 401:
            self._credentials.refused()
            answer = await self._post_file(target, path, content_type, stall_s)
        id_ = self._judge("fhir/R4/Binary", answer).get("id")
        if not isinstance(id_, str) or not id_:
            hint = "check the base URL, and that no login page or proxy answers in the server's place"
            raise LinkError("fhir/R4/Binary: the answer names no Binary", hint=hint)
        return f"Binary/{id_}"

    async def _post_file(self, target: str, path: Path, content_type: str, stall_s: float) -> Answer:
        headers = {
            "Accept": "application/fhir+json, */*; q=0.1",
            "Authorization": f"Bearer {await self._credentials.token()}",
            "Content-Type": content_type,
        }
        return await self._http.send_file(target, path, headers=headers, stall_s=stall_s)

    async def _read(self, path: str) -> Answer:
        headers = {
            "Accept": "application/fhir+json, */*; q=0.1",
            "Authorization": f"Bearer {await self._credentials.token()}",
            "Cache-Control": "no-cache",
        }
        return await self._http.ask("GET", path, headers=headers)

    def _judge(self, path: str, answer: Answer) -> dict[str, Any]:
        said = answer.explanation()
        tail = f": {said}" if said else ""
        if answer.status == 429 or answer.status >= 500:
            raise LinkError(f"{path}: the server answered {answer.status}{tail}", retry_after_s=answer.retry_after_s)
        if answer.status == 401 and (skew := self.finding) is not None:
            raise ServerRefused(f"{path}: the token was refused; {skew.text}", status=401, hint=skew.remedy)
        if not 200 <= answer.status < 300:
            hint = _HINTS.get(answer.status, "check the base URL, and with the server's operator")
            raise ServerRefused(f"{path}: the server answered {answer.status}{tail}", status=answer.status, hint=hint)
        content = answer.json()
        if not content:
            hint = "check the base URL, and that no login page or proxy answers in the server's place"
            raise LinkError(f"{path}: the answer is no JSON object", hint=hint)
        return content


_HINTS = {
    401: "check that the client application still exists and that base URL and client belong together",
    403: "give the client application an access policy that can read this resource",
    404: "check the id, and that it belongs to the client application's project",
}


def _moment(value: str | None) -> datetime | None:
    """An HTTP date (RFC 9110 §5.6.7)."""
    try:
        moment = parsedate_to_datetime(value or "")
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _retry_after_s(value: str | None, now: datetime) -> float | None:
    """Retry-After (RFC 9110 §10.2.3): seconds, or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return min(float(value), MAX_RETRY_AFTER_S)
    moment = _moment(value)
    return None if moment is None else min(max(0.0, (moment - now).total_seconds()), MAX_RETRY_AFTER_S)
