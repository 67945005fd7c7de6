"""Every setting of the nexlet, in one object that is passed down.

`Settings` is what the nexlet runs with. Each field has a flag (`--state-dir`), an environment twin (`NEXFN_STATE_DIR`)
and a key in the operator's settings file (`state_dir`); a flag goes before the environment, the environment before the
file, the file before the default. The three tables (`modules`, `defaults`, `namespaces`) stand in the file alone.
`SettingsHolder` keeps the settings in force and reads them again when it is told to (SIGHUP): what is wrong is refused
as a whole, and the old settings stay.

Nothing here reads the environment by itself: `Settings.read` does, and only the command line calls it.
"""

from __future__ import annotations

import difflib
import enum
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from nexlet_functions.documents import Document, DocumentRefused, path_of, read_document
from nexlet_functions.errors import SettingsRefused
from nexlet_functions.functions.keys import public_key_problem
from nexlet_functions.observing.listening import Address, parse_address
from nexlet_functions.rules import (
    Ceilings,
    Duration,
    GrantCeilings,
    HttpRules,
    Interval,
    NamespaceCredentials,
    NamespaceRules,
    NamespaceSecrets,
    ProfileName,
    ReadableFile,
    Size,
    read_secret,
)
from nexlet_models.problems import Problem
from nexlet_models.subjects import valid_token
from nexlet_sandboxes.backlog import MAX_BYTES, MAX_CALLS
from nexlet_sandboxes.probe import ADVICE
from nexlet_sandboxes.profiles import DEFAULT as DEFAULT_PROFILE
from nexlet_sandboxes.reserve import RESERVE

if TYPE_CHECKING:
    from nexlet_functions.natsio.credentials import Credentials

__all__ = [
    "RELOADABLE",
    "Events",
    "LogFormat",
    "LogLevel",
    "Settings",
    "SettingsHolder",
    "flag",
    "state_directory",
    "variable",
]

PREFIX = "NEXFN_"

LOGGERS = ("functions", "natsio", "observing", "runner", "schedules", "streams")
"""The loggers of our own parts, below `nexlet_functions`."""


def flag(name: str) -> str:
    """The command line's name of a setting: `--state-dir`."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment's name of a setting: `NEXFN_STATE_DIR`."""
    return PREFIX + name.upper()


def _listed(separator: str) -> BeforeValidator:
    """In the environment a list is one text, as PATH is."""
    return BeforeValidator(
        lambda value: (
            [part.strip() for part in value.split(separator) if part.strip()] if isinstance(value, str) else value
        )
    )


def _folder(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{path} is not an absolute path")
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    return path


def _curve_key(text: str) -> str:
    reason = public_key_problem(text)
    if reason is not None:
        raise ValueError(f"'{text}' is no public curve key: {reason}")
    return text


def _bucket(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"'{name}' is no name of a bucket: only letters, digits, '_' and '-'")
    return name


def _layer(name: str) -> str:
    if name not in ADVICE:
        raise ValueError(f"no layer is called '{name}'; there are {', '.join(ADVICE)}")
    return name


def _levels(value: object) -> object:
    """`natsio=debug,opentelemetry=error`, or a table in the file; a part of ours may be named by its last word."""
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(name.strip() and level.strip() for name, _, level in pairs):
            raise ValueError("what is expected is LOGGER=LEVEL, such as natsio=debug")
        value = {name.strip(): level.strip() for name, _, level in pairs}
    if isinstance(value, dict):
        value = {f"nexlet_functions.{name}" if name in LOGGERS else name: level for name, level in value.items()}
    return value


def _address(value: object) -> object:
    return parse_address(str(value)) if isinstance(value, str | int) else value


Listening = Annotated[Address, NoDecode, BeforeValidator(_address)]
Folder = Annotated[Path, AfterValidator(_folder)]
Texts = Annotated[tuple[str, ...], NoDecode, _listed(",")]
CurveKeys = Annotated[tuple[Annotated[str, AfterValidator(_curve_key)], ...], NoDecode, _listed(",")]
Layers = Annotated[tuple[Annotated[str, AfterValidator(_layer)], ...], NoDecode, _listed(",")]
Folders = Annotated[tuple[Folder, ...], NoDecode, _listed(os.pathsep)]


class Events(enum.StrEnum):
    """Which invocations are told as `WORKLOADTRIGGERED`."""

    ALL = "all"
    FAILURES = "failures"


class LogFormat(enum.StrEnum):
    """How the nexlet's own log is written; `auto` is text on a terminal and JSON lines where it is piped."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """From which level on the nexlet logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


LogLevels = Annotated[dict[str, LogLevel], NoDecode, BeforeValidator(_levels)]


class Settings(BaseSettings):
    """What the nexlet runs with. Frozen; a change makes another one."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False
    )

    # Who we are to Nex.
    register_type: str = Field("python", description="workload type that clients name with --type")
    name: str = Field("nexlet-functions", description="name of this agent, [A-Za-z0-9_-]+")
    nexus: str = Field("nexus", description="name of the nexus")
    max_workloads: int = Field(0, ge=0, description="functions on this nexlet at most; 0 is no limit")

    # How we reach NATS. What is secret comes from a file or from the environment, never from an argument.
    servers: Texts = Field(("nats://127.0.0.1:4222",), min_length=1, description="NATS servers, joined by commas")
    creds: ReadableFile | None = Field(None, description="creds file with a user's JWT and seed")
    nkey: ReadableFile | None = Field(None, description="file with an nkey seed")
    user: str = Field("", description="user name")
    password: SecretStr = Field(SecretStr(""), description="password of the user; in the environment only")
    password_file: ReadableFile | None = Field(None, description="file with the password")
    token: SecretStr = Field(SecretStr(""), description="token; in the environment only")
    token_file: ReadableFile | None = Field(None, description="file with a token")
    tls_ca: ReadableFile | None = Field(None, description="certificates of who may sign the server's")
    tls_cert: ReadableFile | None = Field(None, description="our certificate")
    tls_key: ReadableFile | None = Field(None, description="its key")
    tls_first: bool = Field(False, description="TLS before the server says anything")
    connect_timeout: Duration = Field(2.0, description="time for each step of connecting to one server")
    ping_interval: Duration = Field(
        3.0, description="how often a server is asked for a sign of life; after three of them without, it is gone"
    )

    # What we keep, and where.
    settings_file: Path | None = Field(None, description="operator's settings, YAML or TOML; read again on SIGHUP")
    state_dir: Path | None = Field(None, description="folder for what outlives a restart")
    no_state: bool = Field(False, description="keep nothing over a restart")
    take_over: bool = Field(
        False,
        description="have the nexlet that uses the state folder hand over, without losing a request; "
        "without state, start also what another nexlet of the node runs",
    )
    xkey_file: Path | None = Field(None, description="file with the curve key; made where there is none")
    xkey_peers: CurveKeys = Field(
        (), description="public curve keys of other nexlets for which a sealed environment may be sealed anew"
    )
    secrets_dir: Folder | None = Field(None, description="folder with secrets, NAMESPACE/KEY")
    secrets_bucket: Annotated[str, AfterValidator(_bucket)] | None = Field(
        None, description="KV bucket with secrets that are sealed to the curve key; it has to be there"
    )
    schedules_bucket: Annotated[str, AfterValidator(_bucket)] = Field(
        "nexlet-schedules", description="KV bucket that says what of each schedule ran last; it has to be there"
    )

    # How we behave.
    grace: Duration = Field(10.0, description="time for what runs to finish when a function or the nexlet stops")
    artifact_timeout: Duration = Field(30.0, description="longest time for fetching a source")
    max_pending: int = Field(
        MAX_CALLS, ge=1, description="invocations that may wait, of all functions; one function has at most half of it"
    )
    max_pending_bytes: Size = Field(MAX_BYTES, description="and the bytes of their messages, shared in the same way")
    max_idle_workers: int | None = Field(
        None,
        ge=1,
        description="idle workers that are kept, of all functions; the longest idle go, but for a function's min; "
        "none given, as many as an eighth of the memory holds",
    )
    reserve_workers: int = Field(
        RESERVE,
        ge=0,
        description="locked workers that wait for a function that has none, so that its first answer comes sooner",
    )
    max_outgoing: Size = Field(
        8 * 1024 * 1024, description="bytes that may wait to be sent on a connection; feeds have half of it"
    )
    max_own_connections: int = Field(
        8,
        ge=0,
        description="functions that have a connection of their own, while they are flooded, so that others need not "
        "wait behind what is sent to them; 0 for none",
    )
    max_requests: int = Field(512, ge=1, description="requests of the node and of discovery that are served at once")
    max_hops: int = Field(
        16, ge=0, description="functions that a message may go through; one beyond is not run, as it is in a loop"
    )
    max_calls_at_once: int = Field(
        256, ge=1, description="calls of all functions, to what they were granted, that are done at once"
    )
    max_calls_bytes: Size = Field(64 * 1024 * 1024, description="and the bytes that these may carry together")
    max_call_size: Size = Field(
        8 * 1024 * 1024, description="largest object that a call may store or get; messages are bounded by the server"
    )
    max_starting: int = Field(32, ge=1, description="functions that start side by side; others wait their turn")
    metrics_interval: Interval = Field(
        10.0, description="time between two messages about a function on Nex's metrics feed; 0s for none"
    )
    rotation_interval: Interval = Field(
        10.0, description="time between two looks at the secrets of functions with rotation: live; 0s for none"
    )
    tracing: bool = Field(False, description="a span for each invocation; the OTEL_ variables say where they go")
    log_format: LogFormat = Field(LogFormat.AUTO, description="auto, text or json")
    log_level: LogLevel = Field(LogLevel.INFO, description="debug, info, warning or error")
    log_levels: LogLevels = Field(
        default_factory=dict, description="the same for single loggers, such as natsio=debug, joined by commas"
    )
    metrics: Listening | None = Field(
        None, description="address that serves /metrics, /healthz and /readyz; on this machine alone without a host"
    )

    # What functions may do; read again on SIGHUP.
    events: Events = Field(Events.ALL, description="which invocations are published as events: all or failures")
    default_profile: ProfileName = Field(DEFAULT_PROFILE, description="sandbox profile of a function that names none")
    permit_missing_layers: Layers = Field(
        (), description="layers of the sandbox that functions may run without where the machine lacks them; see doctor"
    )
    cgroup: Folder | None = Field(None, description="delegated folder of cgroup v2: each worker gets a group in it")
    source_folders: Folders = Field((), description="folders that file:// sources may come from")
    modules: Annotated[dict[str, tuple[str, ...]], NoDecode] = Field(
        default_factory=dict, description="further modules that functions may import, each with the names it gives"
    )
    defaults: Annotated[NamespaceRules, NoDecode] = Field(
        NamespaceRules.model_construct(), description="rules for every namespace"
    )
    namespaces: Annotated[dict[str, NamespaceRules], NoDecode] = Field(
        default_factory=dict, description="rules for a namespace, in place of the defaults"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given and nothing else: who makes a `Settings` in a program is not surprised by its environment."""
        return (init_settings,)

    @classmethod
    def read(cls, flags: Mapping[str, object] | None = None) -> Self:
        """The settings that flags, environment and settings file make together.

        Args:
            flags: name of a setting to what the command line says; None stands for a flag that was not given.

        Raises:
            SettingsRefused: with every problem, each at its flag, its variable or its line in the file.
        """
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        environment = EnvSettingsSource(cls, env_ignore_empty=True)()
        file = given.get("settings_file") or environment.get("settings_file")
        document = _read_file(Path(str(file))) if file else None
        origins: dict[str, Callable[[str], str]] = {}
        values: dict[str, Any] = {}
        if document is not None:
            values.update(document.value)
        for source, named in ((environment, variable), (given, flag)):
            values.update(source)
            origins.update(dict.fromkeys(source, named))
        problems: list[Problem] = []
        if document is not None:
            problems += [*_unknown_keys(cls, document), *_secrets_in(document)]
        values = {name: value for name, value in values.items() if name in cls.model_fields}
        if isinstance(values.get("defaults"), dict) and isinstance(values.get("namespaces"), dict):
            values["namespaces"] = {
                name: _merged(values["defaults"], rules) for name, rules in values["namespaces"].items()
            }
        try:
            made = cls(**values)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False, include_context=False):
                problems.append(_problem(detail, document, origins))
            raise SettingsRefused(_once(problems)) from None
        if problems:
            raise SettingsRefused(problems)
        return made

    @classmethod
    def read_modules(cls, file: Path) -> dict[str, tuple[str, ...]]:
        """What a settings file permits functions to import, and nothing else of it.

        For who writes functions: they may have the file, and not the folders and credentials that it names.

        Raises:
            SettingsRefused: the file cannot be read, or its `modules` are not in order.
        """
        document = _read_file(file)
        try:
            return cls.model_validate({"modules": document.value.get("modules", {})}).modules
        except ValidationError as error:
            problems = [_problem(detail, document, {}) for detail in error.errors(include_url=False)]
            raise SettingsRefused(_once(problems)) from None

    def rules(self, namespace: str) -> NamespaceRules:
        """What the operator allows `namespace`."""
        return self.namespaces.get(namespace, self.defaults)

    def profiles(self, namespace: str) -> tuple[str, ...]:
        """The sandbox profiles that functions of `namespace` may ask for.

        Weaker ones than the default are for an operator to allow by name; one that was made the default is allowed
        where nothing is said.
        """
        rules = self.rules(namespace)
        if "profiles" in rules.model_fields_set or self.default_profile in rules.profiles:
            return rules.profiles
        return (self.default_profile, *rules.profiles)

    def credentials(self) -> Credentials:
        """What the nexlet itself connects with.

        Raises:
            CredentialsInvalid: a file cannot be read, or a server is no URL.
        """
        from nexlet_functions.natsio.credentials import Credentials  # with NATS, which reading settings does without

        return Credentials(
            servers=self.servers,
            user=self.user,
            password=read_secret(self.password_file) if self.password_file else self.password,
            token=read_secret(self.token_file) if self.token_file else self.token,
            nkey_file=self.nkey,
            creds_file=self.creds,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            tls_ca=self.tls_ca,
            tls_first=self.tls_first,
            name=self.name,
        )

    def namespace_credentials(self, namespace: str) -> Credentials | None:
        """What the operator gives a namespace to connect with; None leaves it at what the node hands out.

        Raises:
            CredentialsInvalid: a file cannot be read.
        """
        given = self.rules(namespace).credentials
        return given.credentials(self.servers) if given is not None else None

    @field_validator("name")
    @classmethod
    def _service_name(cls, name: str) -> str:
        # The name of a NATS micro service.
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError("only letters, digits, '_' and '-'")
        return name

    @field_validator("register_type", "nexus")
    @classmethod
    def _token(cls, text: str) -> str:
        reason = valid_token(text)
        if reason is not None:
            raise ValueError(f"it {reason}")
        return text

    @field_validator("namespaces", mode="after")
    @classmethod
    def _namespace_names(cls, namespaces: dict[str, NamespaceRules]) -> dict[str, NamespaceRules]:
        for name in namespaces:
            reason = valid_token(name)
            if reason is not None:
                raise ValueError(f"'{name}' is no namespace: it {reason}")
        return namespaces

    @field_validator("modules")
    @classmethod
    def _modules(cls, modules: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for module, names in modules.items():
            if not all(part.isidentifier() for part in module.split(".")):
                raise ValueError(f"'{module}' is no module")
            if not names:
                raise ValueError(f"'{module}' needs the names that functions may use of it; a bare list would give all")
            for name in names:
                if not name.isidentifier() or name.startswith("_"):
                    raise ValueError(f"'{module}' cannot give '{name}': a name that does not begin with '_'")
        return modules

    def model_post_init(self, _: object) -> None:
        kinds = [name for name in ("creds", "nkey", "user") if getattr(self, name)]
        if self.token.get_secret_value() or self.token_file:
            kinds.append("token")
        if len(kinds) > 1:
            raise ValueError(f"one kind of credentials, not several: {', '.join(kinds)}")
        if self.password.get_secret_value() and self.password_file:
            raise ValueError("password and password_file: one of the two")
        if self.token.get_secret_value() and self.token_file:
            raise ValueError("token and token_file: one of the two")
        if not self.user and (self.password.get_secret_value() or self.password_file):
            raise ValueError("a password without a user")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        _check_environment_rules(self.defaults, self.namespaces)
        if self.no_state and self.state_dir:
            raise ValueError("state_dir and no_state: one of the two")


def _check_environment_rules(defaults: NamespaceRules, namespaces: Mapping[str, NamespaceRules]) -> None:
    """See that no namespace can read a variable of the nexlet's own, or one of another namespace."""
    if defaults.secrets.environment or defaults.secrets.environment_prefix:
        raise ValueError("defaults: secrets of the environment are for one namespace each: say it under namespaces")
    prefixes = {
        name: rules.secrets.environment_prefix for name, rules in namespaces.items() if rules.secrets.environment_prefix
    }
    for name, prefix in prefixes.items():
        for other, longer in prefixes.items():
            if other != name and longer.startswith(prefix):
                raise ValueError(f"the environment_prefix of '{name}' is the beginning of that of '{other}'")
        for other, rules in namespaces.items():
            if other != name and any(each.startswith(prefix) for each in rules.secrets.environment.values()):
                raise ValueError(f"the environment_prefix of '{name}' takes in a variable of '{other}'")


RELOADABLE = frozenset({"events", "default_profile", "source_folders", "defaults", "namespaces"})
"""What SIGHUP changes; everything else takes a restart: `modules`, too, which workers have from the beginning or never.
Running functions keep the rules they were started under."""


class SettingsHolder:
    """The settings in force, and the way to change them while the nexlet runs."""

    def __init__(self, settings: Settings, read: Callable[[], Settings] | None = None) -> None:
        """Hold `settings`; `read` makes them anew, from where these came from."""
        self._current = settings
        self._read = read or (lambda: self._current)

    @property
    def current(self) -> Settings:
        """What is in force now. Ask each time."""
        return self._current

    def reload(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Read everything again and put the reloadable part in force, all of it or nothing.

        Returns:
            The names of the settings that changed, and of those that differ now but take a restart.

        Raises:
            SettingsRefused: something is wrong; what was in force stays.
        """
        old, new = self._current, self._read()
        differing = [name for name in type(new).model_fields if getattr(new, name) != getattr(old, name)]
        changed = tuple(name for name in differing if name in RELOADABLE)
        self._current = old.model_copy(update={name: getattr(new, name) for name in changed})
        return changed, tuple(name for name in differing if name not in RELOADABLE)


def state_directory(
    settings: Settings, environment: Mapping[str, str], *, root: bool, started_by_node: bool
) -> Path | None:
    """Where state is kept; None where none is.

    The order: `--no-state`, `--state-dir`, systemd's STATE_DIRECTORY, none when the node started us (it gives us
    neither a home nor a folder), /var/lib/nexlet-functions as root, the XDG state home.

    Args:
        environment: of this process.
        root: whether we run as root.
        started_by_node: whether the node itself started this process.
    """
    if settings.no_state:
        return None
    if settings.state_dir is not None:
        return settings.state_dir
    systemd = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if systemd:
        return Path(systemd)
    if started_by_node:
        return None
    if root:
        return Path("/var/lib/nexlet-functions")
    home = environment.get("XDG_STATE_HOME", "")
    if home and Path(home).is_absolute():  # the XDG specification: a relative one is to be ignored
        return Path(home) / "nexlet-functions"
    if environment.get("HOME"):
        return Path(environment["HOME"]) / ".local" / "state" / "nexlet-functions"
    return None


def _merged(defaults: object, rules: object) -> object:
    """A namespace's rules over the defaults, key by key; anything that is not a table is left for validation."""
    if not isinstance(defaults, dict) or not isinstance(rules, dict):
        return rules
    merged = {**defaults, **rules}
    for table in ("ceilings", "grants", "http"):
        if table in defaults and table in rules:
            merged[table] = _merged(defaults[table], rules[table])
    return merged


def _read_file(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            document = Document(path.name, tomllib.loads(text), tuple(text.split("\n")), {}, {})
        else:
            document = read_document(text, path.name)
    except OSError as error:
        raise SettingsRefused([Problem(f"cannot be read: {error.strerror or error}", str(path))]) from None
    except UnicodeDecodeError:
        raise SettingsRefused([Problem("is not UTF-8 text", str(path))]) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsRefused([Problem(f"cannot be read: {error}", str(path))]) from None
    except DocumentRefused as error:
        raise SettingsRefused(error.problems) from None
    if not isinstance(document.value, dict):
        raise SettingsRefused([document.problem("", "has to be a table of settings")])
    return document


def _unknown_keys(settings: type[Settings], document: Document) -> list[Problem]:
    """A typo in an operator's file must not become a rule that is silently not there."""
    return [
        document.problem(key, f"no setting is called '{key}'", advice=_nearest(key, settings), at_key=True)
        for key in document.value
        if key not in settings.model_fields or key == "settings_file"
    ]


def _secrets_in(document: Document) -> list[Problem]:
    """A settings file gets copied, shown and put under version control; what is secret has a file of its own."""
    return [
        replace(
            document.problem(key, f"a {key} does not belong in the settings file", at_key=True),
            source_line="",  # it is on that line
            advice=f"put it into a file that only the nexlet may read, and name that with {key}_file",
        )
        for key in ("password", "token")
        if key in document.value
    ]


def _nearest(key: str, model: type[BaseModel]) -> str:
    near = difflib.get_close_matches(key, [name for name in model.model_fields if name != "settings_file"], n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def _problem(detail: Any, document: Document | None, origins: Mapping[str, Callable[[str], str]]) -> Problem:
    """What pydantic found, at the flag, the variable or the line it came from."""
    steps = [step for step in detail["loc"] if isinstance(step, str | int)]
    message = detail["msg"].removeprefix("Value error, ")
    if not message[1:2].isupper():  # HOST:PORT stays as it is
        message = message[:1].lower() + message[1:]
    advice = ""
    if detail["type"] == "extra_forbidden" and steps:
        model: type[BaseModel] = NamespaceRules
        if "ceilings" in steps[:-1]:
            model = Ceilings
        elif "credentials" in steps[:-1]:
            model = NamespaceCredentials
        elif "grants" in steps[:-1]:
            model = GrantCeilings
        elif "http" in steps[:-1]:
            model = HttpRules
        elif "secrets" in steps[:-1]:
            model = NamespaceSecrets
        message, advice = f"no setting is called '{steps[-1]}'", _nearest(str(steps[-1]), model)
    path = ""
    for step in steps:
        path = path_of(path, step)
    top = str(steps[0]) if steps else ""
    if top in origins:
        return Problem(message, origins[top](top), advice=advice)
    if document is None:
        return Problem(message, path, advice=advice)
    if not document.keys:  # TOML: the reader tells no places
        return Problem(message, f"{document.name} {path}".rstrip(), advice=advice)
    # A default that a namespace took over is wrong where it stands.
    if steps[:1] == ["namespaces"] and path not in document.keys and path not in document.values:
        path = path.replace(path_of("namespaces", str(steps[1])), "defaults", 1)
    return document.problem(path, message, advice=advice, at_key=detail["type"] == "extra_forbidden")


def _once(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
