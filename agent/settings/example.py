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
# `agent config check` says whether everything is right, and `agent config schema --json` is this file's JSON Schema.
#
# Where a secret is kept best, from the strongest place to the weakest:
#   1. a credential of systemd: LoadCredentialEncrypted=client_secret:FILE or LoadCredential=client_secret:FILE in the
#      unit; `proxy` likewise, and `tls.NAME.key_password` for the key of a certificate
#   2. a file of its own, named by client_secret_file, proxy_file or key_password_file: `agent config set-secret` makes
#      it, mode 0600; on Windows only this machine can read what is in it (DPAPI)
#   3. an environment variable: every process of the service has it, and its children inherit it
#   4. this file, mode 0600
#   5. an argument: every user of the host can see it in the process list
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
