"""What the tests of character sets share: every codec that a message may come in."""

from __future__ import annotations

from codecs import lookup
from string import punctuation

from agent.protocol.charset import _CARRIED

CODECS = sorted(lookup(module).name for module in _CARRIED)
DELIMITERS = frozenset(punctuation.encode())
