"""Decide who is asking.

Secret: how tokens are made and recognised (JWT HS256 with a key of this hub's own, RFC 7519) and where client
secrets live (`ClientApplication.secret`, as on Medplum).
Promise: a token is good until its `exp`, or until its client is deleted or given another secret; comparing
secrets takes the same time whatever is wrong; neither tokens nor secrets appear in an error.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import msgspec

from agent.errors import PeerError
from agent.hub.outcomes import Refused
from agent.hub.resources import Author, Resource, Resources

DEFAULT_LIFETIME_S = 3600
LIFETIME = re.compile(r"([0-9]{1,6})\s*(s|m|h|d|w)?\Z")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, None: 1}
REMEMBERED_TOKENS = 256


class TokenRefused(PeerError):
    """No token for this request; the text is the `error_description` that Medplum sends."""

    hint = "check client id and client secret"


@dataclass(frozen=True, slots=True)
class Caller:
    """A client whose token is good until `expires` (epoch s). `generation`: of the resources when that was checked."""

    client: Resource
    expires: float
    generation: int


class Access:
    """Tokens and callers of the hub's one project."""

    def __init__(
        self, resources: Resources, key: bytes, project: Resource, *, now: Callable[[], float] = time.time
    ) -> None:
        """`key` signs tokens; `now` in epoch seconds."""
        self._now = now
        self._resources = resources
        self._key = key
        self._project = project
        self._known: dict[str, Caller] = {}
        self.issuer = ""  # the hub's base URL, once it listens

    def issue(self, form: Mapping[str, str], authorization: str | None) -> dict[str, Any]:
        """The answer to `POST /oauth2/token` (RFC 6749 §4.4). Raises TokenRefused."""
        basic = _basic(authorization)
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        grant = form.get("grant_type")
        if not grant:
            raise TokenRefused("Missing grant_type")
        if grant != "client_credentials":
            raise TokenRefused("Unsupported grant_type")
        if not client_id:
            raise TokenRefused("Missing client_id")
        if not secret:
            raise TokenRefused("Missing client_secret")
        client = self._client(client_id, secret)
        lifetime_s = lifetime_of(client)
        scope = form.get("scope") or "openid"
        reference = {"reference": f"ClientApplication/{client['id']}", "display": client.get("name", "")}
        now = int(self._now())
        identity = {
            "login_id": str(uuid4()),
            "sub": client["id"],
            "iat": now,
            "iss": self.issuer,
            "aud": client["id"],
            "exp": now + lifetime_s,
        }
        access = {
            "username": client["id"],
            "client_id": client["id"],
            "scope": scope,
            "profile": reference["reference"],
            "mark": _mark(client),
        }
        return {
            "token_type": "Bearer",
            "expires_in": lifetime_s,
            "scope": scope,
            "id_token": self._sign({**identity, "fhirUser": reference["reference"]}),
            "access_token": self._sign({**identity, **access}),
            "project": {"reference": f"Project/{self._project['id']}"},
            "profile": reference,
            "smart_style_url": f"{self.issuer}fhir/R4/.well-known/smart-styles.json",
            "need_patient_banner": False,
        }

    def caller(self, token: str) -> Caller | None:
        """Who holds this access token, or None if it is not good."""
        known = self._known.get(token)
        if known is not None and known.generation == self._resources.generation:
            return known if known.expires > self._now() else None
        caller = self._read(token)
        self._known.pop(token, None)
        if caller is not None:
            if len(self._known) >= REMEMBERED_TOKENS:
                self._known.clear()
            self._known[token] = caller
        return caller

    def client_of(self, authorization: str | None) -> Resource | None:
        """The ClientApplication behind an Authorization header, Bearer or Basic; None if it is not good."""
        scheme, _, rest = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            caller = self.caller(rest.strip())
            return caller.client if caller else None
        if (basic := _basic(authorization)) is None:
            return None
        try:
            return self._client(*basic)
        except TokenRefused:
            return None

    def author_of(self, client: Resource) -> Author:
        """The client as meta.author of what it writes."""
        return Author(f"ClientApplication/{client['id']}", client.get("name", ""), self._project["id"])

    def me(self, client: Resource) -> dict[str, Any]:
        """The answer to `GET /auth/me`."""
        reference = {"reference": f"ClientApplication/{client['id']}", "display": client.get("name", "")}
        return {
            "project": {
                "resourceType": "Project",
                "id": self._project["id"],
                "name": self._project.get("name", ""),
                "strictMode": True,
            },
            "membership": {
                "resourceType": "ProjectMembership",
                "id": self._project["id"],
                "user": reference,
                "profile": reference,
            },
            "profile": client,
            "config": {"resourceType": "UserConfiguration", "menu": []},
            "accessPolicy": {"resourceType": "AccessPolicy", "basedOn": [], "resource": [{"resourceType": "*"}]},
        }

    def sign_path(self, path: str, expires: int) -> str:
        """A signature that opens one path until `expires` (epoch s), for links to stored content."""
        return hmac.new(self._key, f"{path}?{expires}".encode(), sha256).hexdigest()

    def opens(self, path: str, expires: str, signature: str) -> bool:
        """Whether the signature of `sign_path` is good and not expired."""
        if not (expires.isascii() and expires.isdigit()) or int(expires) < self._now():
            return False
        return hmac.compare_digest(self.sign_path(path, int(expires)), signature)

    def _client(self, client_id: str, secret: str) -> Resource:
        try:
            client = self._resources.get("ClientApplication", client_id)
        except Refused:
            raise TokenRefused("Invalid client") from None
        if not hmac.compare_digest(str(client.get("secret", "")).encode(), secret.encode()):
            raise TokenRefused("Invalid secret")
        return client

    def _sign(self, claims: Mapping[str, Any]) -> str:
        parts = ({"alg": "HS256", "typ": "JWT"}, claims)
        signed = ".".join(_b64(msgspec.json.encode(part)) for part in parts)
        return f"{signed}.{_b64(hmac.digest(self._key, signed.encode(), 'sha256'))}"

    def _read(self, token: str) -> Caller | None:
        signed, _, signature = token.rpartition(".")
        good = _b64(hmac.digest(self._key, signed.encode("utf-8", "replace"), "sha256"))
        if not hmac.compare_digest(good.encode(), signature.encode("utf-8", "replace")):
            return None
        claims = msgspec.json.decode(_unb64(signed.partition(".")[2]))
        if claims["exp"] <= self._now() or "mark" not in claims:  # an id token opens nothing
            return None
        try:
            client = self._resources.get("ClientApplication", claims["client_id"])
        except Refused:
            return None
        if _mark(client) != claims["mark"]:
            return None
        return Caller(client, claims["exp"], self._resources.generation)


def lifetime_of(client: Resource) -> int:
    """Seconds that a token of this client lives: `accessTokenLifetime` like `6m` or `1h`, else an hour."""
    match = LIFETIME.match(str(client.get("accessTokenLifetime", "")))
    return max(1, int(match[1]) * SECONDS[match[2]]) if match else DEFAULT_LIFETIME_S


def _mark(client: Resource) -> str:
    """Changes with the secret, and does not tell it."""
    return sha256(f"{client['id']}:{client.get('secret', '')}".encode()).hexdigest()[:16]


def _basic(authorization: str | None) -> tuple[str, str] | None:
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote(client_id), unquote(secret)  # RFC 6749 §2.3.1


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
