"""The words an operator types.

Secret: which module serves which word, and the forms that the existing agent understands.
Promise: only the module of the word that was typed is imported; expected trouble is one sentence with its remedy on
stderr and an exit status, never a traceback.

Exit status: 0 well, 1 a problem was found, 2 wrong usage or configuration, 3 the daemon is not running, 130
interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.errors import AgentError, ConfigError


class Verb(NamedTuple):
    """`module` has `register(subparsers)`, which adds the verb's parser, and `run(args) -> int`, the exit status."""

    module: str
    help: str


VERBS: Mapping[str, Verb] = {
    "run": Verb("agent.cli.run", "carry messages: the daemon, in the foreground"),
    "status": Verb("agent.cli.status", "one screen: server link, channels, remotes, spool, findings"),
    "doctor": Verb("agent.cli.doctor", "every check, with remedies; --port: why bytes there are no messages"),
    "channel": Verb("agent.cli.channel", "list, plan and test channels; study ordering keys"),
    "messages": Verb("agent.cli.messages", "list what the spool holds; show a message by its fields"),
    "logs": Verb("agent.cli.logs", "show or follow this host's log; --channel: that of the messages"),
    "quickstart": Verb(
        "agent.cli.quickstart", "try everything on this machine: server, agent and a simulated hospital"
    ),
    "hub": Verb("agent.cli.hub", "the embedded server, for one machine, trying out and tests"),
    "send": Verb("agent.cli.send", "send HL7 files or a generated feed over MLLP"),
    "listen": Verb("agent.cli.listen", "receive HL7 over MLLP and answer"),
    "config": Verb("agent.cli.config", "check, show or set up the local configuration"),
}

_BEFORE_THE_VERB = ("--config", "--data-dir", "--log-level")
_USAGE = """\
agent COMMAND …
       agent BASE_URL CLIENT_ID CLIENT_SECRET AGENT_ID [LOG_LEVEL]
       agent --status"""
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_PIPE_GONE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None, verbs: Mapping[str, Verb] = VERBS) -> int:
    """The console script. `argv` without the program name; the exit status is returned."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console without a dash shows '?', and the command goes on
    try:
        status = _status_of(words, verbs)
        with contextlib.suppress(AttributeError):  # a Windows program without a console has no stdout
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit, and would complain about the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_GONE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _status_of(words: list[str], verbs: Mapping[str, Verb]) -> int:
    try:
        return _dispatch(words, verbs)
    except ConfigError as refused:
        for finding in refused.findings:
            print(f"agent: {finding.severity}: {finding}", file=sys.stderr)
        return 2
    except AgentError as trouble:
        print(f"agent: {trouble}" + (f" — {trouble.hint}" if trouble.hint else ""), file=sys.stderr)
        return 1
    except SystemExit as left:  # argparse's way out after --help and usage errors
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1


def _dispatch(words: list[str], verbs: Mapping[str, Verb]) -> int:
    options, words = _leading_options(words)
    if not words:
        if _names_a_server(options):
            return _run("run", verbs["run"], options)
        _parser(verbs).print_help(sys.stderr)
        return 2
    first, *rest = words
    if first in verbs:
        return _run(first, verbs[first], [*options, *rest])
    if first == "--status":
        return _run("status", verbs["status"], [*options, *rest])
    if first.startswith(("http://", "https://")):
        return _run("run", verbs["run"], [*options, *words])
    if first.startswith("-"):
        _parser(verbs).parse_args(words)  # --help and --version end here, anything else is a usage error
        return 2
    close = difflib.get_close_matches(first, verbs, n=1)
    remedy = f"did you mean '{close[0]}'?" if close else "`agent --help` lists them"
    print(f"agent: there is no command {first[:40]!r} — {remedy}", file=sys.stderr)
    return 2


def _leading_options(words: list[str]) -> tuple[list[str], list[str]]:
    """Options about settings may stand before the verb too: `agent --config FILE run`."""
    taken = 0
    while taken < len(words):
        name, equals, _ = words[taken].partition("=")
        if name not in _BEFORE_THE_VERB:
            break
        taken += 1 if equals else 2
    return words[:taken], words[taken:]


def _names_a_server(options: list[str]) -> bool:
    """Whether the configuration leaves nothing to ask, so that `agent` alone can run, as the existing agent does."""
    from agent.cli.setting_options import add_settings_options, argument_values
    from agent.settings import read

    parser = argparse.ArgumentParser(prog="agent")
    add_settings_options(parser)
    return read(argument_values(parser.parse_args(options)), os.environ, Path.cwd()).names_a_server


def _run(name: str, verb: Verb, words: list[str]) -> int:
    module = importlib.import_module(verb.module)
    parser = argparse.ArgumentParser(prog="agent")
    module.register(parser.add_subparsers(dest="verb", metavar="COMMAND", required=True))
    status: int = module.run(parser.parse_args([name, *words]))
    return status


def _parser(verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """For `agent --help` and usage errors; it names every verb and imports none."""
    from agent import __version__

    parser = argparse.ArgumentParser(
        prog="agent",
        usage=_USAGE,
        description="Carries a hospital's HL7 messages to a Medplum-compatible server, and the answers back.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<12}{verb.help}" for name, verb in verbs.items())
        + "\n\n`agent COMMAND --help` shows the options of a command and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"onprem-agent {__version__}")
    parser.add_argument("--status", action="store_true", help="the same as `agent status`")
    return parser
