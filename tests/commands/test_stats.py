from __future__ import annotations

from agent.commands.stats import stats
from agent.protocol.envelope import StatsRequest, StatsResponse
from agent.status import StatusReport, wire_stats


async def test_the_server_gets_the_numbers_under_its_own_names(report: StatusReport) -> None:
    command = stats(lambda: report)
    facts = await command.answer({})
    assert facts == wire_stats(report)
    assert facts["hl7ConnectionsOpen"] == 3
    assert (command.verb, command.request) == ("stats", StatsRequest)
    assert command.respond is not None
    assert command.respond(facts, "cb-1") == StatsResponse(stats=facts, callback="cb-1")


async def test_each_request_is_answered_with_the_numbers_of_that_moment(report: StatusReport) -> None:
    moments = iter([report, StatusReport("1.2.4", True, 0, report.server, (), (), report.spool)])
    command = stats(lambda: next(moments))
    assert [(await command.answer({}))["version"] for _ in range(2)] == ["1.2.3", "1.2.4"]
