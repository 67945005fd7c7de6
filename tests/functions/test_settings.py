"""Settings: where each value may come from, what is refused and how that reads, and reading them again."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from nexlet_functions.errors import SettingsRefused
from nexlet_functions.natsio.errors import CredentialsInvalid
from nexlet_functions.settings import (
    RELOADABLE,
    Events,
    Settings,
    SettingsHolder,
    flag,
    state_directory,
    variable,
)

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


def refused(flags: dict[str, object] | None = None) -> str:
    with pytest.raises(SettingsRefused) as error:
        Settings.read(flags)
    return str(error.value)


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_flag_and_variable_are_made_from_the_name() -> None:
    assert (flag("state_dir"), variable("state_dir")) == ("--state-dir", "NEXFN_STATE_DIR")


def test_defaults_are_those_of_the_documentation() -> None:
    settings = Settings.read()
    assert settings == Settings()
    assert settings.register_type == "python"
    assert settings.grace == 10.0
    rules = settings.rules("acme")
    assert (rules.subjects, rules.max_functions, rules.credentials) == ((), None, None)
    ceilings = rules.ceilings
    assert (ceilings.timeout, ceilings.load_timeout, ceilings.memory) == (300.0, 30.0, 1024 * MIB)
    assert (ceilings.max_pending, ceilings.log_rate) == (65536, MIB)


def test_nothing_is_read_from_the_environment_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXFN_REGISTER_TYPE", "snake")
    assert Settings().register_type == "python"
    assert Settings.read().register_type == "snake"


def test_a_flag_goes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nexlet.yaml"
    file.write_text("grace: 1s\nname: of-the-file\nnexus: of-the-file\n")
    monkeypatch.setenv("NEXFN_GRACE", "2s")
    monkeypatch.setenv("NEXFN_NAME", "of-the-environment")
    monkeypatch.setenv("NEXFN_SETTINGS_FILE", str(file))
    settings = Settings.read({"grace": "3s", "name": None})
    assert (settings.grace, settings.name, settings.nexus) == (3.0, "of-the-environment", "of-the-file")


def test_what_is_expected_is_said_as_it_is_written() -> None:
    assert "--metrics  HOST:PORT is expected" in refused({"metrics": "99999"})


def test_lists_in_the_environment_are_written_as_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.setenv("NEXFN_SERVERS", "nats://one:4222, nats://two:4222")
    monkeypatch.setenv("NEXFN_SOURCE_FOLDERS", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    settings = Settings.read()
    assert settings.servers == ("nats://one:4222", "nats://two:4222")
    assert settings.source_folders == (tmp_path / "a", tmp_path / "b")


def test_no_text_of_the_settings_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXFN_USER", "operator")
    monkeypatch.setenv("NEXFN_PASSWORD", "hunter2")
    settings = Settings.read()
    assert settings.password.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    monkeypatch.setenv("NEXFN_TOKEN", "t0psecret")
    assert "hunter2" not in refused()
    assert "t0psecret" not in refused()


def test_secrets_do_not_stand_in_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "nexlet.yaml"
    file.write_text("user: me\npassword: hunter2\n")
    text = refused({"settings_file": file})
    assert "nexlet.yaml:2:1  a password does not belong in the settings file" in text
    assert "password_file" in text
    assert "hunter2" not in text


class TestCredentials:
    def test_the_nexlets_own(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("hunter2\n")
        settings = Settings.read(
            {"servers": "nats://a:1,nats://b:2", "user": "me", "password_file": tmp_path / "secret"}
        )
        credentials = settings.credentials()
        assert (credentials.servers, credentials.user) == (("nats://a:1", "nats://b:2"), "me")
        assert credentials.password.get_secret_value() == "hunter2"
        assert "hunter2" not in repr(credentials)

    def test_a_token_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NEXFN_TOKEN", "t0ken")
        assert Settings.read().credentials().token.get_secret_value() == "t0ken"

    def test_a_namespaces_own(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("t0ken")
        given = {"acme": {"credentials": {"token_file": str(tmp_path / "token")}}}
        settings = Settings.read({"servers": "nats://a:1", "namespaces": given})
        credentials = settings.namespace_credentials("acme")
        assert credentials is not None
        assert (credentials.servers, credentials.kind) == (("nats://a:1",), "token")
        assert settings.namespace_credentials("other") is None

    @pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "not UTF-8")])
    def test_a_secret_file_that_holds_none(self, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "secret").write_bytes(content)
        settings = Settings.read({"user": "me", "password_file": tmp_path / "secret"})
        with pytest.raises(CredentialsInvalid, match=reason):
            settings.credentials()
        (tmp_path / "secret").unlink()
        with pytest.raises(CredentialsInvalid, match="No such file"):
            settings.credentials()


NAMESPACES = """
source_folders: [{folder}]
events: failures
modules:
  numpy: [array, sum]
defaults:
  subjects: ["{{namespace}}.>"]
  ceilings: {{timeout: 1m, memory: 256MiB}}
  max_functions: 10
namespaces:
  orders:
    subjects: [orders.>, shop.*.placed]
    ceilings: {{timeout: 10m}}
    max_workers: 8
    max_memory: 2GiB
"""


def test_a_namespace_takes_what_it_does_not_say_from_the_defaults(tmp_path: Path) -> None:
    for name in ("nexlet.yaml", "nexlet.toml"):
        file = tmp_path / name
        if name.endswith(".yaml"):
            file.write_text(NAMESPACES.format(folder=tmp_path))
        else:
            file.write_text(
                f'source_folders = ["{tmp_path}"]\nevents = "failures"\n'
                '[modules]\nnumpy = ["array", "sum"]\n'
                '[defaults]\nsubjects = ["{namespace}.>"]\nmax_functions = 10\n'
                'ceilings = {timeout = "1m", memory = "256MiB"}\n'
                '[namespaces.orders]\nsubjects = ["orders.>", "shop.*.placed"]\nmax_workers = 8\nmax_memory = "2GiB"\n'
                'ceilings = {timeout = "10m"}\n'
            )
        settings = Settings.read({"settings_file": file})
        assert settings.events is Events.FAILURES
        assert settings.source_folders == (tmp_path,)
        assert settings.modules == {"numpy": ("array", "sum")}
        anybody, orders = settings.rules("anybody"), settings.rules("orders")
        assert (anybody.subjects, anybody.max_functions, anybody.max_workers) == (("{namespace}.>",), 10, None)
        assert (anybody.ceilings.timeout, anybody.ceilings.memory) == (60.0, 256 * MIB)
        assert (orders.subjects, orders.max_functions, orders.max_workers) == (("orders.>", "shop.*.placed"), 10, 8)
        assert orders.max_memory == 2048 * MIB
        assert (orders.ceilings.timeout, orders.ceilings.memory) == (600.0, 256 * MIB)


def test_ranges_for_http_are_written_as_everywhere_and_joined_with_the_defaults() -> None:
    settings = Settings.read(
        {
            "defaults": {"http": {"addresses": ["10.1.0.0/16", "fd00::/64"], "timeout": "10s"}},
            "namespaces": {"orders": {"http": {"max_response": "16MiB"}}},
        }
    )
    http = settings.rules("orders").http
    assert [str(network) for network in http.addresses] == ["10.1.0.0/16", "fd00::/64"]
    assert (http.timeout, http.max_response) == (10.0, 16 * MIB)
    assert settings.rules("anybody").http.max_response == 4 * MIB


@pytest.mark.parametrize(
    ("http", "said"),
    [
        ({"adresses": []}, "did you mean 'addresses'?"),
        ({"addresses": ["10.1.0.1/16"]}, "has host bits set"),
        ({"addresses": ["anywhere"]}, "'anywhere' is no range of addresses, such as 10.1.0.0/16"),
        ({"max_response": "1GiB"}, "less than or equal to"),
        ({"timeout": "0s"}, "greater than 0"),
        ({"tls_ca": "/nowhere.pem"}, "there is no file /nowhere.pem"),
    ],
)
def test_a_slip_in_the_rules_for_http_is_said(http: dict[str, object], said: str) -> None:
    assert said in refused({"defaults": {"http": http}})


def test_everything_wrong_in_a_file_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "nexlet.yaml"
    file.write_text(
        "source_folder: [/srv]\n"
        "grace: soon\n"
        "defaults:\n"
        "  subjects: ['a..b']\n"
        "  ceilings:\n"
        "    memry: 1GiB\n"
        "    timeout: -1s\n"
        "namespaces:\n"
        "  orders: {max_function: 3}\n"
        "  'a.b': {}\n"
    )
    text = refused({"settings_file": file})
    for expected in (
        "nexlet.yaml:1:1  no setting is called 'source_folder'",
        "did you mean 'source_folders'?",
        "nexlet.yaml:2:8",
        "nexlet.yaml:4:14  'a..b' is no subject: it has an empty token ('..')",
        "nexlet.yaml:6:5  no setting is called 'memry'",
        "did you mean 'memory'?",
        "nexlet.yaml:7:14",
        "nexlet.yaml:9:12  no setting is called 'max_function'",
        "did you mean 'max_functions'?",
    ):
        assert expected in text
    assert text.count("memry'") == 1, "what the defaults say wrong is said once, not once a namespace"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"grace": "soon"}, "--grace  "),
        ({"grace": "0s"}, "--grace  "),
        ({"name": "a b"}, "--name  only letters, digits"),
        ({"register_type": "py.thon"}, "--register-type  it has a '.' in it"),
        ({"source_folders": ["relative"]}, "--source-folders  relative is not an absolute path"),
        ({"source_folders": ["/nowhere/at/all"]}, "--source-folders  there is no folder /nowhere/at/all"),
        ({"creds": "/nowhere/agent.creds"}, "--creds  there is no file /nowhere/agent.creds"),
        ({"default_profile": "none"}, "--default-profile  no profile is called"),
        ({"xkey_peers": ["XABC"]}, "--xkey-peers  'XABC' is no public curve key"),
        ({"state_dir": "/tmp", "no_state": True}, "state_dir and no_state: one of the two"),
        ({"password": "x"}, "a password without a user"),
        ({"user": "u", "token": "t"}, "one kind of credentials, not several: user, token"),
        ({"modules": {"numpy": []}}, "'numpy' needs the names"),
        ({"modules": {"numpy": ["_x"]}}, "'numpy' cannot give '_x'"),
        ({"defaults": {"profiles": ["none"]}}, "no profile is called 'none'"),
        ({"namespaces": {"a": {"credentials": {"user": "u"}}}}, "user and password_file go together"),
        ({"settings_file": "/nowhere/nexlet.yaml"}, "/nowhere/nexlet.yaml  cannot be read: No such file"),
    ],
)
def test_what_is_refused_names_where_it_came_from(flags: dict[str, object], expected: str) -> None:
    assert expected in refused(flags)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXFN_EVENTS", "some")
    assert "NEXFN_EVENTS  input should be 'all' or 'failures'" in refused()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "table of settings"),
        ("grace: [\n", "nexlet.yaml"),
        ("", "is empty"),
        ("grace: 1s\ngrace: 2s\n", "second time"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "nexlet.yaml"
    file.write_text(text)
    assert expected in refused({"settings_file": file})


def test_a_damaged_toml_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "nexlet.toml"
    file.write_text("grace = \n")
    assert "nexlet.toml  cannot be read" in refused({"settings_file": file})
    file.write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in refused({"settings_file": file})


class TestReload:
    def test_what_may_change_changes_and_the_rest_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "nexlet.yaml"
        file.write_text("grace: 1s\n")
        holder = SettingsHolder(Settings.read({"settings_file": file}), lambda: Settings.read({"settings_file": file}))
        file.write_text(
            "grace: 2s\nevents: failures\ndefaults: {max_functions: 3}\nmodules: {colorsys: [rgb_to_hsv]}\n"
        )
        assert holder.reload() == (("events", "defaults"), ("grace", "modules"))
        assert holder.current.events is Events.FAILURES
        assert holder.current.rules("acme").max_functions == 3
        assert holder.current.grace == 1.0
        assert holder.current.modules == {}  # no worker has it in its memory

    def test_a_wrong_file_leaves_what_was_in_force(self, tmp_path: Path) -> None:
        file = tmp_path / "nexlet.yaml"
        file.write_text("defaults: {max_functions: 3}\n")
        holder = SettingsHolder(Settings.read({"settings_file": file}), lambda: Settings.read({"settings_file": file}))
        file.write_text("defaults: {max_functions: many}\nevents: failures\n")
        with pytest.raises(SettingsRefused, match=r"nexlet\.yaml:1:27"):
            holder.reload()
        assert holder.current.rules("acme").max_functions == 3
        assert holder.current.events is Events.ALL

    def test_the_list_of_what_may_change_names_settings(self) -> None:
        assert set(Settings.model_fields) > RELOADABLE


class TestStateDirectory:
    HOME = {"HOME": "/home/someone"}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("flags", "environment", "root", "by_node", "expected"),
        [
            ({}, HOME, False, False, "/home/someone/.local/state/nexlet-functions"),
            ({}, {**HOME, "XDG_STATE_HOME": "/state"}, False, False, "/state/nexlet-functions"),
            ({}, {**HOME, "XDG_STATE_HOME": "state"}, False, False, "/home/someone/.local/state/nexlet-functions"),
            ({}, HOME, True, False, "/var/lib/nexlet-functions"),
            ({}, {**HOME, "STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, True, False, "/var/lib/a"),
            ({}, {"STATE_DIRECTORY": "/var/lib/a"}, True, True, "/var/lib/a"),
            ({}, {}, True, True, None),
            ({}, {}, False, False, None),
            ({"state_dir": "/given"}, {**HOME, "STATE_DIRECTORY": "/var/lib/a"}, True, True, "/given"),
            ({"no_state": True}, {**HOME, "STATE_DIRECTORY": "/var/lib/a"}, True, False, None),
        ],
    )
    def test_the_order(
        self, flags: dict[str, object], environment: dict[str, str], root: bool, by_node: bool, expected: str | None
    ) -> None:
        settings = Settings.read(flags)
        chosen = state_directory(settings, environment, root=root, started_by_node=by_node)
        assert chosen == (Path(expected) if expected else None)


def test_secrets_are_compared_by_value() -> None:
    assert Settings(user="u", password=SecretStr("a")) != Settings(user="u", password=SecretStr("b"))
