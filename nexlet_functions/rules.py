"""What an operator allows a namespace: as data, with the types that settings are written in.

`NamespaceRules` are the rules of one namespace, `Ceilings` how far a function may turn its own limits up,
`GrantCeilings` what it may ask to be granted, `HttpRules` where and how much HTTP it may do,
`NamespaceCredentials` what is used in its name in place of what the node hands out. `Duration` and `Size` are numbers
that people write as texts.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from nexlet_models.durations import parse_duration
from nexlet_models.sizes import parse_size
from nexlet_models.subjects import valid_subject
from nexlet_sandboxes.profiles import PROFILES

if TYPE_CHECKING:
    from nexlet_functions.natsio.credentials import Credentials

__all__ = [
    "Ceilings",
    "Duration",
    "GrantCeilings",
    "HttpRules",
    "Interval",
    "NamespaceCredentials",
    "NamespaceRules",
    "NamespaceSecrets",
    "ProfileName",
    "ReadableFile",
    "Size",
    "read_secret",
]

MIB = 1024 * 1024

MAX_ANSWER = 32 * MIB
"""Bytes of the largest answer that HTTP may be permitted: it goes through this process as a whole."""


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0, allow_inf_nan=False)]
"""Seconds; written as Go writes durations: "300ms", "1m30s"."""

Interval = Annotated[float, BeforeValidator(_duration), Field(ge=0, allow_inf_nan=False)]
"""Seconds between two times; 0 is never."""

Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
"""Bytes; written with a unit: "64MiB"."""


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"the file {path} cannot be read by this user")
    return path


def read_secret(path: Path) -> SecretStr:
    """A secret that a file holds, without the line end that an editor leaves behind.

    Raises:
        CredentialsInvalid: the file cannot be read, is empty, or is no text.
    """
    from nexlet_functions.natsio.errors import CredentialsInvalid  # with NATS, which reading rules does without

    what = f"secret file {path}"
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise CredentialsInvalid(what, "is not UTF-8 text") from None
    except OSError as error:
        raise CredentialsInvalid(what, error.strerror or type(error).__name__) from None
    if not text:
        raise CredentialsInvalid(what, "is empty")
    return SecretStr(text)


def _profile(name: str) -> str:
    if name not in PROFILES:
        raise ValueError(f"no profile is called '{name}'; there are {', '.join(PROFILES)}")
    return name


def _pattern(subject: str) -> str:
    reason = valid_subject(subject.replace("{namespace}", "namespace"), wildcards=True)
    if reason is not None:
        raise ValueError(f"'{subject}' is no subject: it {reason}")
    return subject


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"'{value}' is no range of addresses, such as 10.1.0.0/16: {error}") from None


ReadableFile = Annotated[Path, AfterValidator(_file)]
"""A file that is there and that we may read."""

ProfileName = Annotated[str, AfterValidator(_profile)]
"""A sandbox profile that this version has."""

AddressRange = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
"""Addresses in the notation of CIDR."""

Pattern = Annotated[str, AfterValidator(_pattern)]
"""A subject with wildcards; `{namespace}` stands for the namespace's name."""


def _bucket_pattern(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_*-]+", text.replace("{namespace}", "n"), re.ASCII):
        raise ValueError(f"'{text}' is no pattern of buckets: letters, digits, '-', '_', '*' and {{namespace}}")
    return text


def _host_pattern(text: str) -> str:
    if not re.fullmatch(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[0-9]+)?|\[[0-9a-f:.]+\](:[0-9]+)?", text, re.ASCII):
        raise ValueError(
            f"'{text}' is no pattern of hosts: write *, *.example.com or api.example.com, in small letters"
        )
    return text


BucketPattern = Annotated[str, AfterValidator(_bucket_pattern)]
"""Names of buckets: `*` stands for any part of one, `{namespace}` for the namespace's name."""

HostPattern = Annotated[str, AfterValidator(_host_pattern)]
"""Hosts as in a grant; `*` alone is any."""

BucketAccess = Literal["read", "write"]


_CONFIG = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False)


class Ceilings(BaseModel):
    """How far one function may turn its own limits up; the defaults are those of the start request's table."""

    model_config = _CONFIG

    timeout: Duration = Field(300.0, description="longest time limit of an invocation, and longest wait before one")
    load_timeout: Duration = Field(30.0, description="longest time for compiling and loading")
    memory: Size = Field(1024 * MIB, description="most memory of a worker")
    max_pending: int = Field(65536, ge=1, description="most invocations that may wait")
    max_calls: int = Field(100_000, ge=1, description="most calls of one invocation to what it was granted")
    log_rate: Size = Field(MIB, description="most output a second, in bytes")
    idle: Duration = Field(86400.0, description="longest time for which an idle worker is kept")
    workers: int = Field(32, ge=1, description="most workers of one function")
    source: Size = Field(MIB, description="largest source, helper modules included")
    interval: Interval = Field(1.0, description="shortest time between two runs of a schedule; 0s for any")


class GrantCeilings(BaseModel):
    """What functions of a namespace may ask to be granted. What is not said is left to the workload's credentials."""

    model_config = _CONFIG

    publish: tuple[Pattern, ...] | None = Field(
        None, description="patterns that publish grants must lie within; without it those of subjects; [] for none"
    )
    request: tuple[Pattern, ...] | None = Field(
        None, description="patterns that request grants must lie within; without it those of subjects; [] for none"
    )
    kv: dict[BucketPattern, BucketAccess] | None = Field(
        None, description="key-value buckets, such as {namespace}-*, each to read or write; without it any; {} for none"
    )
    objects: dict[BucketPattern, BucketAccess] | None = Field(
        None, description="object stores, likewise; without it any; {} for none"
    )
    http_hosts: tuple[HostPattern, ...] | None = Field(
        None, description="hosts, such as *.example.com, * for any; without it any; [] for none"
    )


class HttpRules(BaseModel):
    """How functions of a namespace do HTTP with the hosts that they were granted."""

    model_config = _CONFIG

    addresses: tuple[AddressRange, ...] = Field(
        (),
        description="ranges that granted hosts may lie in although they are private or of this machine, "
        "such as 10.1.0.0/16",
    )
    tls_ca: ReadableFile | None = Field(
        None, description="certificates of authorities that are believed beside those of the system"
    )
    connect_timeout: Duration = Field(5.0, description="longest time for name, connection and TLS")
    timeout: Duration = Field(30.0, description="longest time of a call, redirects included")
    max_request: Size = Field(MIB, description="largest body of a request")
    max_response: Size = Field(4 * MIB, le=MAX_ANSWER, description="largest body of an answer, unpacked")


class NamespaceCredentials(BaseModel):
    """What a namespace's triggers, feeds and artifacts connect with, in place of what the node hands out.

    One kind of them: a creds file, an nkey seed, a token, or a user with a password. All of it in files.
    """

    model_config = _CONFIG

    servers: tuple[str, ...] = Field((), description="NATS servers; none means those the node names")
    creds: ReadableFile | None = Field(None, description="creds file with a user's JWT and seed")
    nkey: ReadableFile | None = Field(None, description="file with an nkey seed")
    user: str = Field("", description="user name; with password_file")
    password_file: ReadableFile | None = Field(None, description="file with the user's password")
    token_file: ReadableFile | None = Field(None, description="file with a token")
    tls_ca: ReadableFile | None = Field(None, description="certificates of who may sign the server's")
    tls_cert: ReadableFile | None = Field(None, description="our certificate; with tls_key")
    tls_key: ReadableFile | None = Field(None, description="its key")
    tls_first: bool = Field(False, description="TLS before the server says anything")

    def model_post_init(self, _: object) -> None:
        kinds = [name for name in ("creds", "nkey", "user", "token_file") if getattr(self, name)]
        if len(kinds) > 1:
            raise ValueError(f"one kind of credentials, not several: {', '.join(kinds)}")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")

    def credentials(self, servers: tuple[str, ...]) -> Credentials:
        """As a connection takes them; `servers` where none are named here.

        Raises:
            CredentialsInvalid: a file cannot be read.
        """
        from nexlet_functions.natsio.credentials import Credentials  # as above

        return Credentials(
            servers=self.servers or servers,
            user=self.user,
            password=read_secret(self.password_file) if self.password_file else SecretStr(""),
            token=read_secret(self.token_file) if self.token_file else SecretStr(""),
            nkey_file=self.nkey,
            creds_file=self.creds,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            tls_ca=self.tls_ca,
            tls_first=self.tls_first,
        )


_OWN_VARIABLES = ("NEXFN_", "NEX_", "NATS_")
"""What the variables begin with that have the nexlet's own credentials in them."""


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"'{name}' is no name of a variable")
    for own in _OWN_VARIABLES:
        if name.startswith(own) or own.startswith(name):
            raise ValueError(f"'{name}' takes in variables of the nexlet's own, which begin with {own}")
    return name


Variable = Annotated[str, AfterValidator(_variable)]
"""A variable of the environment, or the beginning of one, that is none of the nexlet's own."""


class NamespaceSecrets(BaseModel):
    """Which variables of the nexlet's environment are secrets of a namespace. None where nothing is said."""

    model_config = _CONFIG

    environment: dict[str, Variable] = Field(
        default_factory=dict, description="name of a secret to the variable that has it"
    )
    environment_prefix: Variable | None = Field(
        None, description="variables that begin so are secrets, by the rest of their name; such as ACME_SECRET_"
    )


class NamespaceRules(BaseModel):
    """What the operator allows a namespace. `defaults` are these rules for every namespace without its own word."""

    model_config = _CONFIG

    subjects: tuple[Pattern, ...] = Field(
        (), description="patterns that triggers must lie within, such as {namespace}.>; none means any that is free"
    )
    credentials: NamespaceCredentials | None = Field(
        None, description="connect with these for triggers, feeds and artifacts"
    )
    profiles: tuple[ProfileName, ...] = Field(
        ("strict", "isolated", "oneshot"),
        min_length=1,
        description="sandbox profiles allowed; unless it is said, the default profile is one of them",
    )
    ceilings: Ceilings = Field(Ceilings.model_construct(), description="how far limits may be turned up")
    grants: GrantCeilings = Field(
        GrantCeilings.model_construct(), description="what functions may be granted beside their messages"
    )
    http: HttpRules = Field(HttpRules.model_construct(), description="how functions do HTTP")
    secrets: NamespaceSecrets = Field(
        NamespaceSecrets.model_construct(), description="secrets out of the nexlet's environment"
    )
    max_functions: int | None = Field(None, ge=0, description="functions of the namespace on this nexlet")
    max_workers: int | None = Field(None, ge=1, description="workers of all of them, by what they ask for at most")
    max_cpu: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="processors that all of them may keep busy together, such as 1.5"
    )
    max_memory: Annotated[int | None, BeforeValidator(_size), Field(gt=0)] = Field(
        None, description="memory of all these workers"
    )
