"""`agent doctor` and the running agent say the same of the same trouble."""

from __future__ import annotations

import json
from typing import Any

from ward_agents import AgentProcess
from ward_building import Ward


async def doctor(agent: AgentProcess) -> tuple[int, dict[str, Any]]:
    code, output = await agent.ask("doctor", "--json")
    told: dict[str, Any] = json.loads(output)
    return code, told


async def test_what_the_doctor_finds_the_running_agent_raises_by_itself(ward: Ward) -> None:
    # given an agent at work, of which the doctor has nothing to say
    server, port = await ward.server(), ward.port()
    server.channel("adt", port)
    agent = await ward.running_agent(server)
    await server.until_live()
    await ward.device(port)
    code, told = await doctor(agent)
    assert (code, [found for found in told["findings"] if found["severity"] == "error"]) == (0, [])
    assert {check["code"]: check["ok"] for check in told["checks"] if check["code"] in ("ports", "spool", "agent")} == {
        "ports": True,
        "spool": True,
        "agent": True,
    }

    # when its data folder is opened to everybody on the host
    agent.data_dir.chmod(0o777)

    # then the doctor says so, and after a while the agent does, in the same words
    _, told = await doctor(agent)
    [found] = [found for found in told["findings"] if found["code"] == "disk.open-to-others"]
    status = await agent.until(
        lambda status: any(raised["code"] == "disk.open-to-others" for raised in status["findings"]), within_s=40
    )
    [raised] = [raised for raised in status["findings"] if raised["code"] == "disk.open-to-others"]
    assert raised == found


async def test_with_the_agent_killed_and_the_server_away_the_doctor_still_answers(ward: Ward) -> None:
    server, port = await ward.server(), ward.port()
    server.channel("adt", port)
    agent = await ward.running_agent(server)
    await server.until_live()
    await ward.device(port)
    await agent.until(lambda _: (agent.data_dir / "last-good.json").exists())
    await agent.kill()
    await server.go()

    code, told = await doctor(agent)

    checks = {check["code"]: check for check in told["checks"]}
    assert code == 1
    assert not checks["tcp"]["ok"]
    assert "not looked at" in checks["websocket"]["text"]
    assert checks["spool"]["ok"]
    assert checks["configuration"]["ok"]
    assert all(found["remedy"] for found in told["findings"] if found["severity"] == "error")
