from __future__ import annotations

import msgspec

from agent.commands.status import status
from agent.status import StatusReport, to_json


async def test_the_local_door_gets_the_object_of_agent_status_json(report: StatusReport) -> None:
    command = status(lambda: report)
    assert command.verb == "status"
    assert msgspec.json.encode(await command.answer({})) == to_json(report)


def test_the_server_has_no_frame_for_it(report: StatusReport) -> None:
    assert status(lambda: report).request is None
