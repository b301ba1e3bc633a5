"""What one setting is, what a table with a name of its own is, and what one source says of them.

Secret: how the dotted name of a key becomes its name in the environment, and how a table that a person named is found
again there.
Promise: each spelling of a variable belongs to one table name or to none; no name goes by two variables.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.settings.values import Parser

OWN_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")  # what TOML takes as a bare key, ASCII so that capitals are certain
_ALIKE = 0.5  # `cert` is that much like `certificate`


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `name` is its dotted TOML path; names in `env` are further ones, stronger first."""

    name: str
    parse: Parser
    doc: str
    default: object = None
    unset: str = ""  # what holds when there is no default
    env: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()  # keys of agent.properties, stronger first
    argument: str = ""  # its name among the arguments of a command
    example: str = ""
    required: bool = False
    holds: str = ""  # of a secret: what somebody sees who reads it

    @property
    def env_names(self) -> tuple[str, ...]:
        return ("AGENT_" + folded(self.name.replace(".", "_")), *self.env)

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def secret(self) -> bool:
        """Whether nobody may see the value; another key, with `_file` at its end, names a file that holds it alone."""
        return bool(self.holds)


@dataclass(frozen=True, slots=True)
class NamedSection:
    """Tables of one form, as many as a person writes, each with a name of its own: `[tls.main]`, `[tls.lab]`.

    `keys` are the leaves of every such table. `example` is the name, and `doc` the remarks, in config.example.toml.
    """

    name: str
    doc: tuple[str, ...]
    example: str
    keys: tuple[Key, ...]

    def keys_of(self, own: str) -> tuple[Key, ...]:
        return tuple(dataclasses.replace(key, name=f"{self.name}.{own}.{key.leaf}") for key in self.keys)

    def key(self, own: str, leaf: str) -> Key | None:
        return next((key for key in self.keys_of(own) if key.leaf == leaf), None) if OWN_NAME.fullmatch(own) else None

    def in_variable(self, variable: str) -> tuple[str, str] | None:
        """(own name in capitals, leaf) of `AGENT_<SECTION>_<NAME>_<LEAF>`; None where it is no such variable."""
        leaves = "|".join(key.leaf.upper() for key in self.keys)
        found = re.fullmatch(rf"AGENT_{self.name.upper()}_([A-Z0-9_]{{1,40}})_({leaves})", variable)
        return None if found is None else (found[1], found[2].lower())

    def nearest(self, own: str, leaf: str) -> str:
        """The key that somebody who wrote `leaf` most likely meant, or empty."""
        return self._best([(own, leaf)])

    def nearest_variable(self, variable: str) -> str:
        """What may have been meant by a variable that looks like one of such a table and is none, or empty."""
        prefix = f"AGENT_{self.name.upper()}_"
        words = variable.removeprefix(prefix).split("_") if variable.startswith(prefix) else []
        splits = [("_".join(words[:at]), "_".join(words[at:])) for at in range(1, len(words))]
        name = self._best([split for split in splits if split[0]]) or self._best([(self.example, "_".join(words))])
        return f"AGENT_{folded(name.replace('.', '_'))}" if name else ""

    def _best(self, written: Sequence[tuple[str, str]]) -> str:
        """The key most like one of these (own name, leaf); the ending `_file` tells none from another."""
        likeness = {
            key.name: difflib.SequenceMatcher(None, _stem(key.leaf), _stem(leaf)).ratio()
            for own, leaf in written
            for key in self.keys_of(own)
        }
        best = max(likeness, key=lambda name: likeness[name], default="")
        return best if best and likeness[best] >= _ALIKE else ""


@dataclass(frozen=True, slots=True)
class Given:
    """One value as its source gave it. `base`: the folder that a relative path in it starts from.

    `lenient`: from a source that the existing agent reads too, which warns of a bad value and goes on without.
    """

    value: object = field(repr=False)  # perhaps a secret
    source: str
    base: Path
    lenient: bool = False


Layer = dict[str, Given]
"""Key name -> what one source says."""


def folded(name: str) -> str:
    """A name as the environment can write it: capitals, and no hyphen (POSIX.1-2017, XBD 8.1)."""
    return name.upper().replace("-", "_")


def _stem(leaf: str) -> str:
    return leaf.lower().removesuffix("_file")
