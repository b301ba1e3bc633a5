"""Read what a Bot does with a message, from the text in `Bot.code`.

Secret: the spelling of the three behaviours a hub can run.
Promise: a text either names exactly one of them or is refused with the three spellings.

- `ack`: keep the message and answer AA.
- `webhook https://host/path`: POST the body; the answer's body goes back.
- `python package.module:function`: call it with a `Message`; sync functions run in a thread.

`Bot.timeout` is the deadline of the last two, in seconds (30).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.errors import PeerError

TIMEOUT_S = 30.0
CALLABLE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


class BadBehaviour(PeerError):
    """A Bot.code that this hub cannot run."""

    hint = "write `ack`, `webhook https://host/path` or `python package.module:function` into Bot.code"


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Keep the message, answer AA."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """POST the message to `url`."""

    url: str


@dataclass(frozen=True, slots=True)
class PythonCallable:
    """Call `function` of `module`."""

    module: str
    function: str


Behaviour = Acknowledge | Webhook | PythonCallable


def read_behaviour(code: object) -> Behaviour:
    """Bot.code as a behaviour. Raises BadBehaviour."""
    kind, _, rest = code.strip().partition(" ") if isinstance(code, str) else ("", "", "")
    rest = rest.strip()
    if kind == "ack" and not rest:
        return Acknowledge()
    if kind == "webhook" and rest.startswith(("http://", "https://")) and " " not in rest:
        return Webhook(rest)
    if kind == "python" and CALLABLE.match(rest):
        module, _, function = rest.partition(":")
        return PythonCallable(module, function)
    raise BadBehaviour(f"this hub cannot run that code: {BadBehaviour.hint}")
