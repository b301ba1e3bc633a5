"""What an operator says in five places becomes one answer, or one list of everything that is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import ConfigError, Severity
from agent.settings import ChannelDefaults, HostPort, Limits, OutboundDefaults, Secret, SpoolSettings, paths_for

if TYPE_CHECKING:
    from conftest import Host


def test_the_four_values_are_enough_and_everything_else_has_its_default(host: Host) -> None:
    settings = host.load()

    assert settings.server.base_url == "https://fhir.example.org/"
    assert settings.server.client_secret.reveal() == "s3cret"
    assert (settings.server.max_frame_bytes, settings.server.response_timeout_s) == (1_048_576, 60.0)
    assert settings.diagnostics.listen == HostPort("127.0.0.1", 8640)
    assert settings.spool == SpoolSettings(min_free_mb=64)
    assert settings.channels == ChannelDefaults(25.0, 16 * 1024 * 1024, 0, 0.0, 120.0, 60, tls={})
    assert settings.outbound == OutboundDefaults(30.0, 60.0, 1_000, 64 * 1024 * 1024)
    assert settings.limits == Limits(2_000, 32 * 1024 * 1024, 64, 256 * 1024 * 1024)
    assert settings.tls == {}
    assert (settings.log.main.level, settings.log.main.max_file_size_mb, settings.log.main.files_to_keep) == (
        "INFO",
        10,
        10,
    )
    assert settings.log.channel == settings.log.main
    assert settings.source_of("limits.window_frames") == "default"


def test_what_holds_for_every_channel_is_said_in_one_table(host: Host) -> None:
    host.write(
        "config/config.toml",
        "[channels]\nack_timeout_s = 1\nmax_message_bytes = 2048\nmax_connections = 3\nidle_timeout_s = 4.5\n"
        "frame_timeout_s = 0\nkeepalive_s = 6\n[limits]\nunfinished_bytes = 16777216\n",
    )

    settings = host.load()

    assert settings.channels == ChannelDefaults(1.0, 2_048, 3, 4.5, 0.0, 6)
    assert settings.limits.unfinished_bytes == 16 * 1024 * 1024


def test_a_part_that_is_built_without_settings_has_the_same_defaults(host: Host) -> None:
    settings = host.load()

    assert (settings.spool, settings.channels, settings.outbound, settings.limits) == (
        SpoolSettings(), ChannelDefaults(), OutboundDefaults(), Limits(),
    )  # fmt: skip


def test_what_holds_for_every_remote_is_said_in_one_table_or_in_the_environment(host: Host) -> None:
    host.write(
        "config/config.toml",
        "[outbound]\nack_timeout_s = 0\nwait_s = 1.5\nwaiting_per_remote = 3\nwaiting_bytes = 1048576\n",
    )

    assert host.load().outbound == OutboundDefaults(0.0, 1.5, 3, 1024 * 1024)
    assert host.load(AGENT_OUTBOUND_ACK_TIMEOUT_S="2.5").outbound.ack_timeout_s == 2.5


@pytest.mark.parametrize(
    ("key", "fitting", "unfit"),
    [
        ("outbound.ack_timeout_s", [0, 0.5, 3_600], [-1, 3_601, "nan"]),
        ("outbound.wait_s", [1, 1.5, 3_600], [0, 0.5, 3_601]),
        ("outbound.waiting_per_remote", [1, 1_000_000], [0, 1_000_001, 1.5]),
        ("outbound.waiting_bytes", [1024**2, 4 * 1024**3], [1024**2 - 1, 4 * 1024**3 + 1, 0]),
        ("channels.max_connections", [0, 100_000], [-1, 100_001, 1.5]),
        ("channels.idle_timeout_s", [0, 0.5, 86_400], [-1, 86_401, "nan"]),
        ("channels.frame_timeout_s", [0, 0.5, 86_400], [-1, 86_401, "inf"]),
        ("channels.keepalive_s", [0, 7_200], [-1, 7_201, 0.5]),
        ("limits.unfinished_bytes", [16 * 1024 * 1024, 64 * 1024**3], [16 * 1024 * 1024 - 1, 64 * 1024**3 + 1, 0]),
    ],
)
def test_limits_have_limits(host: Host, key: str, fitting: list[object], unfit: list[object]) -> None:
    for value in fitting:
        assert host.read(host.four | {key: value}).errors == ()
    for value in unfit:
        (problem,) = host.read(host.four | {key: value}).errors
        assert (problem.code, problem.where) == ("settings.bad-value", f"{key} (argument {key})")


def test_the_secret_is_shown_nowhere(host: Host) -> None:
    settings = host.load(host.four | {"server.proxy": "http://user:pass@proxy:3128"})

    assert "s3cret" not in repr(settings)
    assert f"{settings.server.client_secret}" == "******"
    assert "pass" not in repr(settings)
    assert settings.server.proxy == Secret("http://user:pass@proxy:3128")
    assert str(settings.server.proxy) == "http://******@proxy:3128"


def test_each_source_wins_over_the_weaker_ones_and_is_remembered(host: Host) -> None:
    host.write(
        "config/agent.properties", "baseUrl=https://five.example.org\nclientId=five\nagentId=five\nlogLevel=error\n"
    )
    host.write("config/config.toml", '[server]\nclient_id = "four"\nagent_id = "four"\nca_file = "four.pem"\n')
    named = host.write(
        "named.toml", '[server]\nagent_id = "three"\nca_file = "three.pem"\n[limits]\nwindow_frames = 3\n'
    )
    environ = {"AGENT_CONFIG": str(named), "MEDPLUM_CLIENT_SECRET": "two", "AGENT_LIMITS_WINDOW_FRAMES": "2"}
    argv = {"client_secret": "one"}

    settings = host.load(argv, **environ)

    assert settings.server.base_url == "https://five.example.org/"
    assert settings.server.client_id == "four"
    assert settings.server.agent_id == "three"
    assert settings.limits.window_frames == 2
    assert settings.server.client_secret.reveal() == "one"
    assert settings.log.main.level == "ERROR"
    assert settings.server.ca_file == named.parent / "three.pem"
    assert settings.source_of("server.client_secret") == "argument client_secret"
    assert settings.source_of("limits.window_frames") == "environment AGENT_LIMITS_WINDOW_FRAMES"
    assert settings.source_of("server.agent_id") == str(named)
    assert settings.source_of("server.client_id") == str(host.config_dir / "config.toml")
    assert "agent.properties" in settings.source_of("server.base_url")


def test_the_existing_agents_ways_of_saying_the_four_values_work_unchanged(host: Host) -> None:
    host.write(
        "cwd/agent.properties",
        "# made by the installer\r\nbaseUrl = https://api.medplum.com/\r\nclientId=a\r\nclientSecret=x=y==\r\nagentId=b\r\n"
        "logger.main.logLevel=DEBUG\r\nlogger.main.maxFileSizeMb=5\r\nlogger.channel.filesToKeep=3\r\nlogger.channel.logDir=c\r\n",
    )

    settings = host.load({})

    assert settings.server.client_secret.reveal() == "x=y=="
    assert (settings.log.main.level, settings.log.main.max_file_size_mb) == ("DEBUG", 5)
    assert settings.log.channel is not None
    assert settings.log.channel.files_to_keep == 3
    assert settings.log.channel.dir == host.cwd / "c"
    assert settings.log.channel.level == "DEBUG"

    by_environment = host.load(
        {},
        MEDPLUM_BASE_URL="http://localhost:8103",
        MEDPLUM_CLIENT_ID="c",
        MEDPLUM_CLIENT_SECRET="d",
        MEDPLUM_AGENT_ID="e",
        MEDPLUM_LOG_LEVEL="warn",
    )
    assert (by_environment.server.base_url, by_environment.log.main.level) == ("http://localhost:8103/", "WARN")


def test_what_is_missing_is_one_error_that_names_all_four_ways(host: Host) -> None:
    with pytest.raises(ConfigError) as refused:
        host.load({"base_url": "https://x", "client_id": "", "client_secret": None}, MEDPLUM_AGENT_ID="")

    (finding,) = refused.value.findings
    assert finding.code == "settings.missing"
    assert finding.where == "server.client_id, server.client_secret, server.agent_id"
    for way in ("agent run BASE_URL", "MEDPLUM_CLIENT_ID", "config.toml", "agent.properties"):
        assert way in finding.remedy


@pytest.mark.parametrize(("content", "unread"), [("[server]\n", False), ("[server\n", True), (b"\xff", True)])
def test_what_is_missing_may_stand_in_a_file_that_could_not_be_read(
    host: Host, content: str | bytes, unread: bool
) -> None:
    host.write("config/config.toml", content)

    (missing,) = [found for found in host.read({}).errors if found.code == "settings.missing"]

    assert ("that could be read" in missing.text) is unread


def test_every_problem_is_told_at_once_with_key_source_and_remedy(host: Host) -> None:
    host.write("config/config.toml", "[server]\nbase_urls = 'x'\n[limits]\nwindow_frames = 0\n[diagnostic]\nlisten=0\n")

    with pytest.raises(ConfigError) as refused:
        host.load(
            host.four | {"base_url": "wss://fhir.example.org", "log_level": "loud"}, AGENT_LIMIT_WINDOW_FRAMES="7"
        )

    by_place = {finding.where.split(" ")[0]: finding for finding in refused.value.findings}
    assert set(by_place) == {
        "server.base_urls", "limits.window_frames", "diagnostic", "server.base_url", "log.level",
        "AGENT_LIMIT_WINDOW_FRAMES", "server.client_secret",
    }  # fmt: skip
    assert "did you mean server.base_url?" in by_place["server.base_urls"].remedy
    assert "did you mean diagnostics?" in by_place["diagnostic"].remedy
    assert "https://" in by_place["server.base_url"].remedy
    assert "config.toml" in by_place["limits.window_frames"].where
    assert "argument log_level" in by_place["log.level"].where
    assert "AGENT_LIMITS_WINDOW_FRAMES" in by_place["AGENT_LIMIT_WINDOW_FRAMES"].remedy
    assert by_place["AGENT_LIMIT_WINDOW_FRAMES"].severity is Severity.WARNING
    assert refused.value.findings[0].severity is Severity.ERROR, "errors come first"


def test_a_broken_value_is_not_also_reported_as_missing(host: Host) -> None:
    assert host.codes(host.four | {"agent_id": "a b"}) == ["settings.bad-value", "settings.secret-in-arguments"]


def test_the_secret_may_stand_in_a_file_of_its_own(host: Host) -> None:
    secret = host.write("config/secret", "from-file\r\n")
    host.write("config/config.toml", "[server]\nclient_secret_file = 'secret'\n")

    settings = host.load(host.four | {"client_secret": None})

    assert settings.server.client_secret.reveal() == "from-file"
    assert str(secret) in settings.source_of("server.client_secret")
    assert settings.findings == ()


def test_systemds_credential_wins_over_files_and_yields_to_the_environment(host: Host) -> None:
    (host.folder / "creds").mkdir()
    host.write("creds/client_secret", "credential")
    host.write("config/config.toml", "[server]\nclient_secret = 'toml'\n")
    creds = {"CREDENTIALS_DIRECTORY": str(host.folder / "creds")}
    argv = host.four | {"client_secret": None}

    assert host.load(argv, **creds).server.client_secret.reveal() == "credential"
    assert host.load(argv, **creds, MEDPLUM_CLIENT_SECRET="env").server.client_secret.reveal() == "env"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True)])
def test_a_file_with_the_secret_that_others_may_read_is_a_warning(host: Host, mode: int, warned: bool) -> None:
    host.write("config/config.toml", "[server]\nclient_secret = 'x'\n", mode)

    findings = host.load(host.four | {"client_secret": None}).findings

    assert [finding.code for finding in findings] == (["settings.secret-readable"] if warned else [])


@pytest.mark.parametrize("content", [b"", b" \n", None])
def test_a_secret_file_that_is_empty_or_away_is_an_error_and_not_a_missing_secret(
    host: Host, content: bytes | None
) -> None:
    if content is not None:
        host.write("secret", content)

    codes = host.codes(host.four | {"client_secret": None, "server.client_secret_file": str(host.folder / "secret")})

    assert codes == ["settings.unreadable" if content is None else "settings.empty-secret"]


def test_http_beyond_this_machine_is_a_warning(host: Host) -> None:
    assert "settings.unencrypted" in host.codes(host.four | {"base_url": "http://fhir.example.org"})
    assert "settings.unencrypted" not in host.codes(host.four | {"base_url": "http://127.0.0.1:8103"})


def test_the_data_folder_takes_everything_along(host: Host, tmp_path: Path) -> None:
    settings = host.load(host.four | {"data_dir": "d"}, LOGS_DIRECTORY="/var/log/x", STATE_DIRECTORY="/var/lib/x")

    data = host.cwd / "d"
    assert settings.paths.data_dir == data
    assert settings.paths.spool == data / "spool.db"
    assert settings.log.main.dir == settings.paths.logs_dir == data / "logs"


def test_the_channel_log_can_be_off_and_may_have_a_level_of_its_own(host: Host) -> None:
    assert host.load(host.four | {"log.channel.enabled": "off"}).log.channel is None

    channel = host.load(host.four | {"log.channel.level": "debug"}).log.channel
    assert channel is not None
    assert channel.level == "DEBUG"


def test_the_proxy_with_its_password_may_stand_in_a_file_of_its_own(host: Host) -> None:
    path = host.write("config/proxy", "http://user:pass@proxy:3128\n")
    host.write("config/config.toml", "[server]\nproxy_file = 'proxy'\n")

    settings = host.load()

    assert settings.server.proxy == Secret("http://user:pass@proxy:3128")
    assert settings.source_of("server.proxy") == f"{path}, named by {host.config_dir / 'config.toml'}"


def test_systemd_hands_over_the_proxy_and_the_files_of_a_certificate_by_their_names(host: Host) -> None:
    (host.folder / "creds").mkdir()
    host.write("creds/proxy", "http://user:pass@proxy:3128\n")
    password = host.write("creds/tls.lab.key_password", "opens it\n")
    host.write("creds/tls.lab.nonsense", "")
    host.write("creds/of-somebody-else", "")

    settings = host.load(CREDENTIALS_DIRECTORY=str(host.folder / "creds"))

    assert settings.server.proxy == Secret("http://user:pass@proxy:3128")
    assert settings.tls["lab"].key_password_file == password
    assert settings.source_of("tls.lab.key_password_file") == f"systemd credential {password}"


def test_a_credentials_folder_that_is_not_there_is_none_of_our_business(host: Host) -> None:
    assert host.read(CREDENTIALS_DIRECTORY=str(host.folder / "gone")).errors == ()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
@pytest.mark.parametrize(("proxy", "warned"), [("http://user:pass@proxy:1", True), ("http://proxy:1", False)])
def test_a_proxy_with_a_password_that_others_may_read_is_a_warning(host: Host, proxy: str, warned: bool) -> None:
    host.write("config/config.toml", f"[server]\nproxy = '{proxy}'\n", 0o644)

    warnings = [found for found in host.load().findings if found.code == "settings.secret-readable"]

    assert ["password of the proxy" in warning.text for warning in warnings] == ([True] if warned else [])


def test_a_secret_among_the_arguments_works_and_is_a_warning(host: Host) -> None:
    (finding,) = host.load().findings

    assert (finding.code, finding.severity) == ("settings.secret-in-arguments", Severity.WARNING)
    assert "set-secret" in finding.remedy


def test_a_bad_number_or_level_in_agent_properties_is_a_warning_as_for_the_existing_agent(host: Host) -> None:
    host.write("cwd/agent.properties", "logLevel=loud\nlogger.main.maxFileSizeMb=ten\nlogger.main.filesToKeep=3\n")

    settings = host.load()

    bad = [finding for finding in settings.findings if finding.code == "settings.bad-value"]
    assert {finding.severity for finding in bad} == {Severity.WARNING}
    assert {finding.where.split(" ")[0] for finding in bad} == {
        "log.level",
        "log.channel.level",
        "log.max_file_size_mb",
    }
    assert all("the default holds" in finding.remedy for finding in bad)
    assert (settings.log.main.level, settings.log.main.max_file_size_mb) == ("INFO", 10)
    assert settings.log.main.files_to_keep == 3


def test_a_bad_one_of_the_four_values_is_an_error_wherever_it_stands(host: Host) -> None:
    host.write("cwd/agent.properties", "baseUrl=no url\n")

    (problem,) = host.read(host.four | {"base_url": None}).errors

    assert (problem.code, problem.where.split(" ")[0]) == ("settings.bad-value", "server.base_url")


def test_the_general_level_in_agent_properties_wins_over_those_of_the_logs_as_for_the_existing_agent(
    host: Host,
) -> None:
    host.write("cwd/agent.properties", "logLevel=ERROR\nlogger.main.logLevel=DEBUG\nlogger.channel.logLevel=DEBUG\n")

    log = host.load().log

    assert log.channel is not None
    assert (log.main.level, log.channel.level) == ("ERROR", "ERROR")


def test_paths_are_found_whatever_else_is_wrong(host: Host) -> None:
    host.write("config/config.toml", "this is no toml")

    paths = paths_for({"data_dir": "d"}, host.environ({}), host.cwd)

    assert paths.data_dir == host.cwd / "d"


def test_a_configuration_that_names_no_server_says_so(host: Host) -> None:
    assert host.read().names_a_server
    assert not host.read(host.four | {"agent_id": ""}).names_a_server
