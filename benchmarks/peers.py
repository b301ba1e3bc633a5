"""MLLP servers written by others, answering every message at once: no disk, no server behind them.

usage: python benchmarks/peers.py python-hl7|hl7apy PORT

Secret: how each library is asked to serve, in the way its own documentation does.
Promise: every message gets the AA that the library builds from its own parse of it. Ends when stdin does.
"""

from __future__ import annotations

import asyncio
import sys
import threading


async def serve_python_hl7(port: int) -> None:
    from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

    async def converse(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                writer.writemessage(message.create_ack())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await start_hl7_server(converse, "127.0.0.1", port, backlog=1024) as server:
        await server.serve_forever()


def serve_hl7apy(port: int) -> None:
    from hl7apy.core import Message
    from hl7apy.mllp import AbstractHandler, MLLPServer
    from hl7apy.parser import parse_message

    class Accept(AbstractHandler):  # type: ignore[misc]
        def reply(self) -> str:
            message = parse_message(self.incoming_message, find_groups=False)
            ack = Message("ACK", version="2.5.1")
            ack.msh.msh_9 = "ACK^A01^ACK"
            ack.msh.msh_10 = message.msh.msh_10.to_er7()
            ack.msh.msh_11 = "P"
            ack.add_segment("MSA")
            ack.msa.msa_1 = "AA"
            ack.msa.msa_2 = message.msh.msh_10.to_er7()
            return str(ack.to_mllp())

    class Server(MLLPServer):  # type: ignore[misc]
        request_queue_size = 1024
        daemon_threads = True

    Server("127.0.0.1", port, {"ADT^A01^ADT_A01": (Accept,)}).serve_forever()


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in ("python-hl7", "hl7apy"):
        sys.exit(__doc__)
    name, port = sys.argv[1], int(sys.argv[2])
    serve = serve_hl7apy if name == "hl7apy" else lambda port: asyncio.run(serve_python_hl7(port))
    threading.Thread(target=serve, args=(port,), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
