"""`agent hub`: run the embedded server.

Secret: how the hub's options are spelt and how its four values are printed.
Promise: the values appear once it listens, one per line or as one JSON object; SIGTERM and SIGINT end it with
exit 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

DESCRIPTION = """\
Run the embedded server: the far end for trying out, for tests and for the quick start, on one machine.
It speaks Medplum's wire: /oauth2/token, /fhir/R4, /ws/agent and the operations on agents: $status, $stats,
$reload-config, $fetch-logs, and $push (messages and pings, with Prefer: respond-async, too). The first start creates a
project, a client and a ready-made agent with one channel `hl7`; later starts print the same values again.

What a channel's target does stands in Bot.code, and can be changed by plain FHIR REST:
  ack                               keep the message, answer AA (to HL7; other devices get no answer)
  webhook https://host/path         POST the message, its answer goes back (Bot.timeout: seconds, 30)
  python package.module:function    call function(message); it returns a text, a dict or None

Received messages: GET {baseUrl}hub/messages and {baseUrl}hub/messages/<id>, with a bearer token.
A site with real traffic runs Medplum Server: same agent, same wire, another base URL and credentials.
"""
EXAMPLE = """\
example:
  agent hub --listen 127.0.0.1:8103 --data-dir ./hub-data --channel-address mllp://0.0.0.0:2575
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `hub` words."""
    parser = subparsers.add_parser(
        "hub",
        help="run the embedded server on this machine",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--listen", default="127.0.0.1:8103", metavar="HOST:PORT", help="default %(default)s; 0 = any")
    parser.add_argument("--data-dir", metavar="DIR", help="where everything is kept; default: the user's data folder")
    parser.add_argument(
        "--channel-address",
        metavar="mllp://HOST:PORT",
        help="address of the ready-made channel, used at the first start; default mllp://0.0.0.0:2575",
    )
    parser.add_argument("--heartbeat-seconds", type=float, default=10.0, metavar="S", help="default 10")
    parser.add_argument(
        "--max-frame-bytes", type=int, default=1_048_576, metavar="N", help="close 1009 beyond it; default 1048576"
    )
    parser.add_argument(
        "--keep-messages", type=int, default=100_000, metavar="N", help="received messages kept; default 100000"
    )
    parser.add_argument(
        "--allow-python",
        action="store_true",
        help="let Bots run Python code though others can reach the hub: who has a token may then run code",
    )
    parser.add_argument("--json", action="store_true", help="print the values as one JSON object on one line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the hub until it is told to stop. Exit status 0, 1 if it cannot start, 2 for a bad option."""
    import asyncio

    from agent.errors import AgentError

    host, _, port = args.listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return _complain(f"--listen {args.listen!r} is no HOST:PORT", "write it as 127.0.0.1:8103", 2)
    if args.heartbeat_seconds <= 0 or args.max_frame_bytes <= 0 or args.keep_messages <= 0:
        return _complain("a number is zero or less", "give --heartbeat-seconds and the like above 0", 2)
    try:
        asyncio.run(_serve(args, host, int(port)))
    except KeyboardInterrupt:
        return 0
    except AgentError as error:
        return _complain(str(error), error.hint, 1)
    return 0


async def _serve(args: argparse.Namespace, host: str, port: int) -> None:
    import asyncio
    import ipaddress
    import signal
    from pathlib import Path

    from platformdirs import user_data_path

    from agent.hub import Hub
    from agent.hub.hub import DEFAULT_CHANNEL_ADDRESS

    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    stop = asyncio.Event()
    if sys.platform == "win32":
        # The proactor loop has no signal handlers; the interpreter's own ones run between two loop iterations.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Hub.open(
        Path(args.data_dir) if args.data_dir else user_data_path("onprem-agent", appauthor=False) / "hub",
        (host, port),
        channel_address=args.channel_address or DEFAULT_CHANNEL_ADDRESS,
        heartbeat_s=args.heartbeat_seconds,
        max_frame_bytes=args.max_frame_bytes,
        keep_messages=args.keep_messages,
        allow_python=local or args.allow_python,
    ) as hub:
        values: dict[str, Any] = {
            "baseUrl": hub.base_url,
            "clientId": hub.client_id,
            "clientSecret": hub.client_secret,
            "agentId": hub.agent_id,
        }
        if args.json:
            print(json.dumps(values), flush=True)
        else:
            print(*(f"{name}={value}" for name, value in values.items()), sep="\n", flush=True)
        await stop.wait()


def _complain(text: str, hint: str, status: int) -> int:
    print(f"agent hub: {text}" + (f" — {hint}" if hint else ""), file=sys.stderr)
    return status
