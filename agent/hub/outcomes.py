"""Say every refusal of the REST side in the words that Medplum's clients look for.

Secret: the ids, codes and texts of Medplum's OperationOutcomes, which tools compare literally.
Promise: a refusal carries its HTTP status; no outcome ever quotes a message or a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from agent.errors import PeerError

TRACING = "https://medplum.com/fhir/StructureDefinition/tracing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: `status` for HTTP, the rest for the OperationOutcome (FHIR R4 §2.40)."""

    status: int
    id: str
    code: str
    text: str
    severity: str = "error"
    expression: str = ""
    diagnostics: str = ""

    def resource(self) -> dict[str, Any]:
        """The OperationOutcome as a part of something larger: without tracing."""
        issue: dict[str, Any] = {"severity": self.severity, "code": self.code, "details": {"text": self.text}}
        if self.expression:
            issue["expression"] = [self.expression]
        if self.diagnostics:
            issue["diagnostics"] = self.diagnostics
        named = {"id": self.id} if self.id else {}
        return {"resourceType": "OperationOutcome", **named, "issue": [issue]}

    def traced(self) -> dict[str, Any]:
        """The OperationOutcome as a whole answer, with ids by which a person can ask about it."""
        ids = [{"url": name, "valueId": str(uuid4())} for name in ("requestId", "traceId")]
        return {**self.resource(), "extension": [{"url": TRACING, "extension": ids}]}


ALL_OK = Outcome(200, "ok", "informational", "All OK", severity="information")
UNAUTHORIZED = Outcome(401, "unauthorized", "login", "Unauthorized")
NOT_FOUND = Outcome(404, "not-found", "not-found", "Not found")
GONE = Outcome(410, "gone", "deleted", "Gone")
PRECONDITION_FAILED = Outcome(412, "precondition-failed", "processing", "Precondition Failed")
TOO_MANY_REQUESTS = Outcome(429, "too-many-requests", "throttled", "Too Many Requests")


def accepted(status_url: str) -> Outcome:
    """HTTP 202: what comes of it can be read there, later."""
    return Outcome(202, "accepted", "informational", "Accepted", severity="information", diagnostics=status_url)


def bad_request(text: str, expression: str = "") -> Outcome:
    """HTTP 400 with this text; `expression` names the element at fault (`Agent.status`)."""
    return Outcome(400, "", "invalid", text, expression=expression)


def missing(expression: str) -> Outcome:
    """HTTP 400: an element that must be there is not."""
    return Outcome(400, "", "structure", "Missing required property", expression=expression)


def misshapen(text: str, expression: str) -> Outcome:
    """HTTP 400: an element is there, but not of the right shape or value."""
    return Outcome(400, "", "structure", text, expression=expression)


class Refused(PeerError):
    """The request is answered with `outcome` and changes nothing."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.text} ({outcome.expression})" if outcome.expression else outcome.text)
        self.outcome = outcome
