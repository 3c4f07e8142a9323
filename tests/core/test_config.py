"""Settings: defaults, ranges, all faults at once, never a value."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core.config import (
    MAX_OPEN_HEADS,
    PREFIX,
    RESERVED_FILES,
    SETTINGS,
    Config,
    Listen,
)
from relay_app.core.errors import ConfigError

SECRET = "hunter2-do-not-print"


def faults(environ: dict[str, str]) -> tuple[str, ...]:
    """The faults of an environment that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        Config.from_environ(environ)
    return caught.value.faults


def test_from_environ_empty_gives_the_defaults_of_the_contract() -> None:
    """Every default, as docs/protocol.md has it."""
    config = Config.from_environ({})
    assert config == Config()
    assert (str(config.listen), str(config.admin_listen)) == (
        "127.0.0.1:8080",
        "127.0.0.1:9090",
    )
    assert dataclasses.asdict(config) | {"listen": 0, "admin_listen": 0} == {
        "listen": 0,
        "admin_listen": 0,
        "public_host": None,
        "trusted_proxies": (),
        "grace_period_s": 30,
        "conflict_probe_s": 10,
        "heartbeat_interval_s": 30,
        "heartbeat_timeout_s": 30,
        "message_timeout_s": 30,
        "write_timeout_s": 10,
        "handshake_timeout_s": 5,
        "close_timeout_s": 5,
        "drain_s": 10,
        "max_frame_bytes": 262144,
        "max_phones_per_server": 16,
        "max_connections": 10000,
        "max_connections_per_ip": 0,
        "rate_burst": 20,
        "rate_per_minute": 10,
        "outbox_max_bytes": 4194304,
        "outbox_total_bytes": 268435456,
        "log_format": "json",
        "log_level": "info",
        "assert_single_instance": False,
        "replicas": None,
        "guard_bypass": False,
        "production": False,
        "allow_root": False,
        "server_ids_file": None,
        "state_dir": None,
        "unknown": (),
    }
    assert config.max_binary_frame_bytes == 262144 + 1024


def test_every_field_has_a_setting() -> None:
    """No field can be set by code only, and no setting is without a field."""
    fields = {field.name for field in dataclasses.fields(Config)} - {"unknown"}
    assert fields == {setting.field for setting in SETTINGS}


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"PORT": "5000"}, "listen", Listen("0.0.0.0", 5000)),
        (
            {"PORT": "5000", PREFIX + "LISTEN": "[::1]:1"},
            "listen",
            Listen("0.0.0.0", 5000),
        ),
        ({PREFIX + "LISTEN": "0.0.0.0:0"}, "listen", Listen("0.0.0.0", 0)),
        ({PREFIX + "LISTEN": "[::]:8080"}, "listen", Listen("::", 8080)),
        ({PREFIX + "LISTEN": "localhost:8080"}, "listen", Listen("localhost", 8080)),
        ({PREFIX + "LISTEN": "fd://7"}, "listen", Listen(fd=7)),
        ({PREFIX + "ADMIN_LISTEN": ""}, "admin_listen", None),
        (
            {PREFIX + "ADMIN_LISTEN": "localhost:1"},
            "admin_listen",
            Listen("localhost", 1),
        ),
        ({PREFIX + "ADMIN_LISTEN": "[::1]:1"}, "admin_listen", Listen("::1", 1)),
        ({PREFIX + "PUBLIC_HOST": "Relay.Example"}, "public_host", "relay.example"),
        ({PREFIX + "TRUSTED_PROXIES": ""}, "trusted_proxies", ()),
        ({PREFIX + "GRACE_PERIOD_S": "0.2"}, "grace_period_s", 0.2),
        ({PREFIX + "GRACE_PERIOD_S": "0"}, "grace_period_s", 0.0),
        ({PREFIX + "RATE_PER_MINUTE": "0"}, "rate_per_minute", 0),
        ({PREFIX + "LOG_FORMAT": "text"}, "log_format", "text"),
        ({PREFIX + "ASSERT_SINGLE_INSTANCE": "true"}, "assert_single_instance", True),
        ({PREFIX + "ASSERT_SINGLE_INSTANCE": "1"}, "assert_single_instance", True),
        ({PREFIX + "SINGLE_INSTANCE": "1"}, "guard_bypass", True),
        ({PREFIX + "PRODUCTION": "1"}, "production", True),
        ({PREFIX + "REPLICAS": "3"}, "replicas", 3),
    ],
)
def test_from_environ_reads_a_setting(
    environ: dict[str, str], field: str, value: object
) -> None:
    """One variable, one field."""
    assert getattr(Config.from_environ(environ), field) == value


def test_listen_is_written_as_it_is_read() -> None:
    """The form for gunicorn and for people."""
    for text in ("127.0.0.1:80", "[::1]:80", "fd://3"):
        assert str(Config.from_environ({PREFIX + "LISTEN": text}).listen) == text


def test_trusted_proxies_are_networks() -> None:
    """A list of CIDRs, with or without spaces."""
    config = Config.from_environ(
        {PREFIX + "TRUSTED_PROXIES": "10.0.0.0/8, fd00::/8,1.2.3.4"}
    )
    assert [str(net) for net in config.trusted_proxies] == [
        "10.0.0.0/8",
        "fd00::/8",
        "1.2.3.4/32",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PORT", ""),
        (PREFIX + "LISTEN", "8080"),
        (PREFIX + "LISTEN", ":8080"),
        (PREFIX + "LISTEN", "host:"),
        (PREFIX + "LISTEN", "host:65536"),
        (PREFIX + "LISTEN", "ho st:80"),
        (PREFIX + "LISTEN", "[::g]:80"),
        (PREFIX + "LISTEN", "fd://x"),
        (PREFIX + "LISTEN", ""),
        (PREFIX + "ADMIN_LISTEN", "0.0.0.0:9090"),
        (PREFIX + "ADMIN_LISTEN", "example.org:9090"),
        (PREFIX + "ADMIN_LISTEN", "fd://3"),
        (PREFIX + "PUBLIC_HOST", "https://relay.example"),
        (PREFIX + "PUBLIC_HOST", "relay.example:443"),
        (PREFIX + "PUBLIC_HOST", ""),
        (PREFIX + "TRUSTED_PROXIES", "10.0.0.0/8;"),
        (PREFIX + "TRUSTED_PROXIES", "10.0.0.1/8"),
        (PREFIX + "GRACE_PERIOD_S", "-1"),
        (PREFIX + "GRACE_PERIOD_S", "1e3"),
        (PREFIX + "GRACE_PERIOD_S", "nan"),
        (PREFIX + "GRACE_PERIOD_S", "86400.1"),
        (PREFIX + "GRACE_PERIOD_S", " 3"),
        (PREFIX + "GRACE_PERIOD_S", ""),
        (PREFIX + "HEARTBEAT_INTERVAL_S", "0"),
        (PREFIX + "MAX_FRAME_BYTES", "1_000"),
        (PREFIX + "MAX_FRAME_BYTES", "1.5"),
        (PREFIX + "MAX_PHONES_PER_SERVER", "0"),
        (PREFIX + "LOG_FORMAT", "JSON"),
        (PREFIX + "LOG_LEVEL", "verbose"),
        (PREFIX + "ASSERT_SINGLE_INSTANCE", "yes"),
        (PREFIX + "ASSERT_SINGLE_INSTANCE", ""),
        (PREFIX + "SINGLE_INSTANCE", "true"),
        (PREFIX + "SINGLE_INSTANCE", "0"),
        (PREFIX + "REPLICAS", "0"),
        (PREFIX + "REPLICAS", "two"),
        (PREFIX + "PRODUCTION", "0"),
    ],
)
def test_from_environ_bad_value_is_one_fault(name: str, text: str) -> None:
    """A value out of range, of the wrong form, or empty refuses the start."""
    (fault,) = faults({name: text})
    assert fault.startswith(f"{name}: must be ")


@pytest.mark.parametrize(
    "name", [s.variable for s in SETTINGS if s.parse.__name__ != "_public_host"]
)
def test_from_environ_never_says_the_value(name: str) -> None:
    """A secret pasted into the wrong line is not printed."""
    assert SECRET not in str(ConfigError(faults({name: SECRET + "/"})))


def test_from_environ_reports_all_faults_together() -> None:
    """One start shows everything that has to be mended."""
    found = faults(
        {PREFIX + "DRAIN_S": "x", PREFIX + "LOG_LEVEL": "", PREFIX + "REPLICAS": "0"}
    )
    assert [fault.partition(":")[0] for fault in found] == [
        PREFIX + "DRAIN_S",
        PREFIX + "LOG_LEVEL",
        PREFIX + "REPLICAS",
    ]
    assert "set but empty" in found[1]


def test_many_unknown_variables_are_counted() -> None:
    """A name need not be text; who has very many has another problem."""
    names = {f"PYRYCODE_RELAY_X{number:02}": "" for number in range(25)}
    sentences = Config.from_environ(names | {"PYRYCODE_RELAY_A\udcff": ""}).unknown
    assert len(sentences) == 21
    assert sentences[0].startswith("PYRYCODE_RELAY_A\\udcff is not a setting")
    assert sentences[-1] == "and 6 more that are no settings"


def test_unknown_variable_is_named_with_the_nearest_known_one() -> None:
    """A typo is no fault, but it is not silent either."""
    config = Config.from_environ({PREFIX + "GRACE_PERIOD": SECRET, "OTHER": "x"})
    (sentence,) = config.unknown
    assert sentence == (
        "PYRYCODE_RELAY_GRACE_PERIOD is not a setting; did you mean PYRYCODE_RELAY_GRACE_PERIOD_S?"
    )


@pytest.mark.parametrize("files", [1, 66, 128, 1024, 20_000, 1 << 20])
def test_within_file_limit_leaves_room_for_everything_else(files: int) -> None:
    """Connections and open heads together fit under the limit, with a reserve."""
    config, heads = Config().within_file_limit(files)
    assert 1 <= config.max_connections <= 10_000
    assert 1 <= heads <= MAX_OPEN_HEADS
    if files > RESERVED_FILES + 2:
        assert (
            config.max_connections + heads + RESERVED_FILES <= files or files >= 20_000
        )
    if files == 1 << 20:
        assert config.max_connections == 10_000


@given(
    st.dictionaries(
        st.sampled_from([setting.variable for setting in SETTINGS])
        | st.text(max_size=10),
        st.text(max_size=20) | st.integers().map(str) | st.floats().map(str),
    )
)
def test_from_environ_any_environment_gives_a_config_or_faults(
    environ: dict[str, str],
) -> None:
    """No environment makes anything but a Config or a ConfigError."""
    try:
        Config.from_environ(environ)
    except ConfigError as error:
        assert error.faults
