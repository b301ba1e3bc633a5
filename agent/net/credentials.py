"""Hold a token that the server accepts.

Secret: the OAuth2 client-credentials exchange (RFC 6749 §4.4), when a token is renewed, what a refusal means.
Promise: one request at a time, never a loop of them; while an old token lives, trouble with the new one hurts nobody.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Any, NoReturn

import msgspec
import structlog

from agent.backoff import Backoff, pause
from agent.errors import AgentError, ConfigError, Finding, LinkError, Severity
from agent.net.proxy import Proxy
from agent.net.rest import Answer, Http

RENEW_BEFORE_S = 300.0  # a token that lives an hour is renewed five minutes early
RENEW_AT_SHARE = 0.8  # one that lives less than 25 minutes, when this share of its life is over
LEAST_LIFE_S = 5.0  # a token said to be dead on arrival is used that long all the same, for want of a better one
DEFAULT_LIFE_S = 3600.0  # neither expires_in nor exp
FRESH_S = 5.0  # a younger token that is refused was not the reason; asking again would be a loop
REFUSED_RETRY_S = 30.0  # after a wrong id or secret; a person has to act first

log = structlog.get_logger("main")


class CredentialsRefused(ConfigError):
    """The server does not know the client id, or the secret is not its secret. The finding says which."""


def renew_after_s(life_s: float) -> float:
    """How long after it was asked for a token that lives this long is renewed: late, but with time for a few tries."""
    return max(life_s - RENEW_BEFORE_S, life_s * RENEW_AT_SHARE, LEAST_LIFE_S)


def _steady_clock() -> float:
    """Seconds that go on while the host sleeps: a token does not live longer because the machine was suspended."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Credentials:
    """The current token and its renewal. `run` belongs in a TaskGroup; without it, tokens are renewed when asked for.

    `secret` may be a callable, so that a secret that was changed on disk is used at the next renewal.
    """

    def __init__(
        self,
        base_url: str,
        client_id: str,
        secret: Callable[[], str] | str,
        *,
        proxy: Proxy | None = None,
        ssl: SSLContext | None = None,
        user_agent: str = "onprem-agent",
        timeout_s: float = 30.0,
        clock: Callable[[], float] = _steady_clock,
        wait: Callable[[asyncio.Event, float], Awaitable[None]] = pause,
        backoff: Backoff | None = None,
    ) -> None:
        self._base_url = base_url
        self._client_id = client_id
        self._secret = secret
        self._http = Http(base_url, proxy=proxy, ssl=ssl, user_agent=user_agent, timeout_s=timeout_s)
        self._clock = clock
        self._wait = wait
        self._backoff = backoff or Backoff(1.0, 60.0)
        self._token: str | None = None
        self._asked_at = 0.0
        self._renew_at = 0.0
        self._expires_at = 0.0
        self._not_before = 0.0  # the server asked us to stay away until then
        self._turn = asyncio.Lock()
        self._attempts = 0
        self._failure: AgentError | None = None
        self._introduced = False
        self._tended = False
        self._wake = asyncio.Event()

    @property
    def current(self) -> str | None:
        """The token to put into a frame now; None before the first and after the last has died."""
        return self._token if self._clock() < self._expires_at else None

    @property
    def finding(self) -> Finding | None:
        """What a person should know: the last refusal, or clocks too far apart."""
        if isinstance(self._failure, ConfigError):
            return self._failure.findings[0]
        return None if self._http.skew is None else self._http.skew.finding()

    def refused(self) -> str:
        """The server did not take the current token. Answers what may be the cause, or nothing.

        The token is forgotten, unless it is so new that another one would fare no better.
        """
        if self._clock() - self._asked_at >= FRESH_S:
            self._token, self._expires_at, self._renew_at = None, 0.0, 0.0
            self._wake.set()
        skew = None if self._http.skew is None else self._http.skew.finding()
        return "" if skew is None else str(skew)

    async def token(self) -> str:
        """A token that lives, asked for if need be. Raises LinkError or CredentialsRefused."""
        held = self.current
        if held is not None and (self._tended or self._clock() < self._renew_at):
            return held
        try:
            await self._renew()
        except AgentError:
            if (held := self.current) is None:
                raise
            return held
        assert self._token is not None
        return self._token

    async def run(self) -> None:
        """Keep a living token at hand, for ever. Expected trouble is logged once and waited out."""
        self._tended = True
        try:
            while True:
                self._wake.clear()
                await self._wait(self._wake, await self._tend())
        finally:
            self._tended = False

    async def _tend(self) -> float:
        """Renew if it is time, and say how long to wait before the next look."""
        if self.current is None or self._clock() >= self._renew_at:
            try:
                await self._renew()
            except CredentialsRefused:
                return max(self._backoff.next(), REFUSED_RETRY_S)
            except AgentError as error:
                wait_s = self._backoff.next()
                return max(wait_s, getattr(error, "retry_after_s", None) or 0.0)
            self._backoff.reset()
        return max(self._renew_at - self._clock(), 1.0)

    async def _renew(self) -> None:
        """Ask for a new token; everybody who comes while one is being asked for shares the outcome."""
        before = self._attempts
        async with self._turn:
            if self._attempts != before:
                if self._failure is not None:
                    raise self._failure
                return
            try:
                await self._ask()
            except AgentError as error:
                self._attempts += 1
                self._note(error)
                raise
            self._attempts += 1
            self._note(None)

    async def _ask(self) -> None:
        asked_at = self._clock()
        if asked_at < self._not_before:
            wait_s = self._not_before - asked_at
            raise LinkError(f"the server wants no token requests for {wait_s:.0f} s more", retry_after_s=wait_s)
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._secret() if callable(self._secret) else self._secret,
        }
        async with self._http as http:
            answer = await http.ask("POST", "oauth2/token", headers={"Accept": "application/json"}, form=form)
            content = answer.json()
            token = content.get("access_token")
            if answer.status != 200 or not isinstance(token, str) or not token:
                self._refuse(answer)
            life_s = max(self._life_s(token, content.get("expires_in")), LEAST_LIFE_S)
            self._token = token
            self._asked_at = asked_at
            self._expires_at = asked_at + life_s
            self._renew_at = asked_at + min(renew_after_s(life_s), life_s)
            if not self._introduced:
                await self._introduce(http, token)

    def _refuse(self, answer: Answer) -> NoReturn:
        said = answer.explanation()
        if answer.status in (400, 401):
            skew = self._http.skew.finding() if self._http.skew is not None else None
            raise CredentialsRefused([_which_is_wrong(said, self._base_url), *([skew] if skew else [])])
        if answer.status == 429:
            self._not_before = self._clock() + (answer.retry_after_s or 0.0)
        if answer.status == 200:
            hint = "check the base URL, and that no login page or proxy answers in the server's place"
            raise LinkError(f"{self._base_url} answered the login without a token", hint=hint)
        hint = "check the base URL" if answer.status < 429 else ""
        tail = f": {said}" if said else ""
        text = f"{self._base_url} answered the login with {answer.status}{tail}"
        raise LinkError(text, hint=hint, retry_after_s=answer.retry_after_s)

    def _life_s(self, token: str, expires_in: object) -> float:
        if isinstance(expires_in, int | float) and not isinstance(expires_in, bool):
            return float(expires_in)
        expires = _claims(token).get("exp")
        if isinstance(expires, int | float) and not isinstance(expires, bool):
            # By the server's own clock where it told us: ours may be wrong, and the life is what counts.
            issued = self._http.skew.server.timestamp() if self._http.skew is not None else time.time()
            return float(expires) - issued
        return DEFAULT_LIFE_S

    async def _introduce(self, http: Http, token: str) -> None:
        """Ask once who we are, as agents always did at login. For the log only: a server without it is as good."""
        self._introduced = True
        headers = {"Accept": "application/fhir+json, */*; q=0.1", "Authorization": f"Bearer {token}"}
        try:
            answer = await http.ask("GET", "auth/me", headers=headers)
        except LinkError:
            return
        project = answer.json().get("project")
        name = project.get("name") if isinstance(project, dict) else None
        log.info("login.done", status=answer.status, project=name, base_url=self._base_url)

    def _note(self, failure: AgentError | None) -> None:
        """Log a change of state, not every try."""
        if failure is not None and str(failure) != str(self._failure):
            event = "login.refused" if isinstance(failure, CredentialsRefused) else "login.failed"
            level = log.error if isinstance(failure, CredentialsRefused) else log.warning
            level(event, reason=str(failure), remedy=failure.hint)
        elif failure is None and self._failure is not None:
            log.info("login.recovered")
        self._failure = failure


def _which_is_wrong(said: str, base_url: str) -> Finding:
    lowered = said.lower()
    if "secret" in lowered:
        code, where, remedy = "credentials.client-secret", "server.client_secret", "copy the client secret again"
    elif "client" in lowered:
        code, where, remedy = "credentials.client-id", "server.client_id", "check the client id, and the base URL"
    else:
        code, where, remedy = "credentials.refused", "server.client_id", "check client id, client secret and base URL"
    return Finding(code, Severity.ERROR, f"{base_url} refused the login: {said or 'no reason given'}", remedy, where)


def _claims(token: str) -> dict[str, Any]:
    """The payload of a JWT (RFC 7519 §3), unverified: it is read for its expiry only. Empty for any other token."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}
