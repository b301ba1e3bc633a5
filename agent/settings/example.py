"""The text of `config.example.toml`.

Secret: how the table of keys reads best to somebody who fills it in.
Promise: every key stands in it with its default, and one table of each kind that people name; it is valid TOML as it
is, and stays so with every `#` before a key or a table removed.
"""

from __future__ import annotations

from agent.settings.keys import KEYS, NAMED
from agent.settings.shape import Key, NamedSection

_HEAD = """\
# Configuration of the on-premise agent. Copy it to config.toml in the configuration folder (`agent config show` says
# where that is) and fill in the four values of [server]. What is commented out shows the default.
#
# Stronger than this file are arguments, then environment variables (named with each key), then --config FILE.
# `agent config check` says whether everything is right.
"""


def example_toml() -> str:
    """The whole file, line ends LF."""
    parts = [_HEAD]
    section = ""
    for key in KEYS:
        if key.section != section:
            section = key.section
            parts.append(f"\n[{section}]\n")
        parts.append(_entry(key))
    parts += [_named(section) for section in NAMED.values()]
    return "".join(parts)


def _named(section: NamedSection) -> str:
    remarks = "".join(f"# {remark}\n" for remark in section.doc)
    entries = "".join(_entry(key) for key in section.keys_of(section.example))
    return f"\n{remarks}# [{section.name}.{section.example}]\n{entries}"


def _entry(key: Key) -> str:
    remarks = [key.doc]
    if key.required:
        remarks.append(f"required, like {key.example}" if key.example else "required")
    elif key.default is None:
        remarks.append(f"default: {key.unset}")
    remarks.append("environment: " + ", ".join(key.env_names))
    comment = "\n" + "".join(f"# {remark}\n" for remark in remarks)
    if key.required:
        return f'{comment}{key.leaf} = ""\n'
    return f"{comment}# {key.leaf} = {_value(key.example if key.default is None else key.default)}\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) or (isinstance(value, str) and value.isdigit()):
        return str(value)
    return f'"{value}"'
