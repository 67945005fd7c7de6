"""Where to connect and as whom. `Credentials` is a value: equal ones may share a connection, different ones never do.

Secrets stay in `SecretStr` or in the files they come from; files are read anew for each connection, so that a rotated
creds file or certificate is taken up at the next reconnection. Nothing here is shown by `repr`, logs or errors but
server addresses (without user parts), user names and paths of files.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import nkeys
from pydantic import SecretStr

from nexlet_functions.natsio.errors import CredentialsInvalid
from nexlet_models.connection import NatsConnectionData, redact_url
from nexlet_models.subjects import matches

__all__ = ["DEFAULT_URL", "Credentials"]

DEFAULT_URL = "nats://127.0.0.1:4222"
"""Where a NATS server listens if nobody says otherwise; what an empty server list means to Nex."""

_NONE = SecretStr("")
_SCHEMES = ("nats", "tls", "ws", "wss")
_CREDS_PART = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END \1-{3,}")
_MAX_FILE = 64 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Servers and at most one kind of credentials.

    Attributes:
        servers: URLs (`nats://`, `tls://`, `ws://`, `wss://`, or `host:port`); a user part in one counts where no
            other credentials are given.
        user, password: the plain kind.
        token: the plainer kind.
        nkey_seed: the private half of an nkey (SU...); `nkey_file` is a file that holds it.
        jwt: of a user, with `nkey_seed`; `creds_file` is a file that holds both.
        tls_cert, tls_key: the client's certificate and its key, files.
        tls_ca: whom to trust, a file; None for the machine's own list.
        tls_first: TLS before the server says anything.
        name: what the connection is called on the server; takes no part in equality.

    Raises:
        CredentialsInvalid: more than one kind, half of one, or a server that is no URL.
    """

    servers: tuple[str, ...] = (DEFAULT_URL,)
    user: str = ""
    password: SecretStr = _NONE
    token: SecretStr = _NONE
    nkey_seed: SecretStr = _NONE
    nkey_file: Path | None = None
    jwt: SecretStr = _NONE
    creds_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_first: bool = False
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.servers:
            object.__setattr__(self, "servers", (DEFAULT_URL,))
        for url in self.servers:
            _check_url(url)
        kinds = [
            kind
            for kind, given in (
                ("user and password", self.user or _has(self.password)),
                ("token", _has(self.token)),
                ("nkey", (_has(self.nkey_seed) and not _has(self.jwt)) or self.nkey_file is not None),
                ("JWT", _has(self.jwt)),
                ("creds file", self.creds_file is not None),
            )
            if given
        ]
        if len(kinds) > 1:
            raise CredentialsInvalid("credentials", f"give one kind, not {' and '.join(kinds)}")
        if bool(self.user) != _has(self.password):
            raise CredentialsInvalid("credentials", "a user needs a password, and a password a user")
        if _has(self.jwt) and not _has(self.nkey_seed):
            raise CredentialsInvalid("credentials", "a JWT needs the seed of its user")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise CredentialsInvalid("TLS", "a certificate needs its key, and a key its certificate")

    @classmethod
    def from_connection_data(cls, data: NatsConnectionData) -> Self:
        """What a node tells us to connect with. JWT and seed count first, then nkey and seed, then user and password.

        Raises:
            CredentialsInvalid: see the class.
        """
        kind: dict[str, Any] = {}
        if _has(data.nats_user_seed) and _has(data.nats_user_jwt):
            kind = {"jwt": data.nats_user_jwt, "nkey_seed": data.nats_user_seed}
        elif _has(data.nats_user_seed) and data.nats_user_nkey:
            kind = {"nkey_seed": data.nats_user_seed}
        elif data.nats_user_name and _has(data.nats_user_password):
            kind = {"user": data.nats_user_name, "password": data.nats_user_password}
        # A certificate without its key, or the other way round, is left out, as the Go nexlets do.
        pair = bool(data.tls_cert and data.tls_key)
        return cls(
            servers=split_servers(data.nats_servers),
            tls_cert=Path(data.tls_cert) if pair else None,
            tls_key=Path(data.tls_key) if pair else None,
            tls_ca=Path(data.tls_ca) if data.tls_ca else None,
            tls_first=data.tls_first,
            name=data.conn_name,
            **kind,
        )

    @property
    def kind(self) -> str:
        """What the server is shown: `jwt`, `nkey`, `user`, `token`, `url` (in the address) or `none`."""
        if _has(self.jwt) or self.creds_file is not None:
            return "jwt"
        if _has(self.nkey_seed) or self.nkey_file is not None:
            return "nkey"
        if self.user:
            return "user"
        if _has(self.token):
            return "token"
        return "url" if any("@" in url for url in self.servers) else "none"

    @property
    def addresses(self) -> tuple[str, ...]:
        """The servers, without user parts: what logs and errors may show."""
        return tuple(redact_url(url) for url in self.servers)

    def with_user_part(self, url: str) -> str:
        """A server that another one told us of, with the user part of our own servers where that is what counts."""
        if self.kind != "url" or "@" in url:
            return url
        given = next(own for own in self.servers if "@" in own)
        scheme, _, rest = url.rpartition("://")
        user_part = given.rpartition("://")[2].rpartition("@")[0]
        return f"{scheme or 'nats'}://{user_part}@{rest}"

    def connect_options(self) -> dict[str, Any]:
        """The arguments of nats-py's `connect` that say who we are; files are read now.

        Raises:
            CredentialsInvalid: a file is missing or not what it should be, or a seed is none.
        """
        options: dict[str, Any] = {}
        jwt, seed = self._jwt_and_seed()
        if jwt:
            options["user_jwt_cb"] = lambda: jwt.encode()
            options["signature_cb"] = _signer(seed)
        elif seed:
            options["nkeys_seed_str"] = seed
        elif self.user:
            options["user"] = self.user
            options["password"] = self.password.get_secret_value()
        elif _has(self.token):
            options["token"] = self.token.get_secret_value()
        if self.tls_first or self.tls_ca is not None or self.tls_cert is not None:
            options["tls"] = self._tls()
            options["tls_handshake_first"] = self.tls_first
        return options

    def may_publish(self, subject: str) -> bool | None:
        """Whether the permissions that these credentials carry allow publishing on `subject`; None if they say nothing.

        Only a JWT says so; what a server's own configuration allows is not known before it refuses.

        Raises:
            CredentialsInvalid: see `connect_options`.
        """
        return self._may("pub", subject)

    def may_subscribe(self, subject: str) -> bool | None:
        """The same for subscribing, without a queue group.

        Raises:
            CredentialsInvalid: see `connect_options`.
        """
        return self._may("sub", subject)

    def _may(self, what: Literal["pub", "sub"], subject: str) -> bool | None:
        jwt, _ = self._jwt_and_seed()
        if not jwt:
            return None
        try:
            permitted = _claims(jwt)["nats"].get(what) or {}
            allow, deny = _subjects(permitted.get("allow")), _subjects(permitted.get("deny"))
        except (KeyError, AttributeError, TypeError):
            raise CredentialsInvalid("JWT", "is not a user's JWT") from None
        if any(matches(pattern, subject) for pattern in deny):
            return False
        return any(matches(pattern, subject) for pattern in allow) if allow else None

    def advice(self, now: float) -> str:
        """What to do where a server turns these credentials down; "" where nothing more can be said than that it does.

        Args:
            now: seconds since 1970.
        """
        try:
            jwt, _ = self._jwt_and_seed()
            expires = _claims(jwt).get("exp") if jwt else None
        except CredentialsInvalid:
            return ""  # which is the reason that is given already
        text = ""
        if isinstance(expires, int | float) and 0 < expires <= now:
            text = f"the JWT expired at {datetime.fromtimestamp(expires, UTC):%Y-%m-%dT%H:%M:%SZ}; "
        if self.creds_file is not None:
            return f"{text}renew the creds file {self.creds_file}: it is read anew at each attempt"
        if self.nkey_file is not None:
            return f"renew the nkey file {self.nkey_file}, or have the server know its user: it is read anew each time"
        return f"{text}whoever gave it has to give another one" if text else ""

    def _jwt_and_seed(self) -> tuple[str, str]:
        """Both, one or neither, with the files read and the seed proved to be one."""
        jwt, seed, what = self.jwt.get_secret_value(), self.nkey_seed.get_secret_value().strip(), "seed"
        if self.creds_file is not None:
            what = f"creds file {self.creds_file}"
            parts = dict(_CREDS_PART.findall(_read(self.creds_file, what)))
            jwt, seed = parts.get("NATS USER JWT", ""), parts.get("USER NKEY SEED", "")
            if not jwt or not seed:
                raise CredentialsInvalid(
                    what, "holds no user JWT with its seed; expected is what `nsc generate creds` writes"
                )
        elif self.nkey_file is not None:
            what = f"nkey file {self.nkey_file}"
            found = re.search(r"^\s*(SU[A-Z2-7]+)\s*$", _read(self.nkey_file, what), re.MULTILINE)
            seed = found[1] if found else ""
            if not seed:
                raise CredentialsInvalid(what, "holds no user seed (SU...)")
        if seed and not _is_user_seed(seed):
            raise CredentialsInvalid(what, "is not a valid seed of a user (SU...)")
        return jwt, seed

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.tls_ca) if self.tls_ca is not None else None)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsInvalid(f"TLS authorities {self.tls_ca}", _reason(error)) from None
        if self.tls_cert is not None and self.tls_key is not None:
            try:
                context.load_cert_chain(self.tls_cert, self.tls_key)
            except (OSError, ssl.SSLError) as error:
                raise CredentialsInvalid(
                    f"TLS certificate {self.tls_cert} with key {self.tls_key}", _reason(error)
                ) from None
        return context

    def __repr__(self) -> str:
        shown = [f"servers={self.addresses!r}", f"kind={self.kind!r}"]
        shown += [
            f"{name}={str(value)!r}"
            for name in ("user", "nkey_file", "creds_file", "tls_cert", "tls_key", "tls_ca")
            if (value := getattr(self, name))
        ]
        return f"Credentials({', '.join(shown)})"


def split_servers(servers: Iterable[str]) -> tuple[str, ...]:
    """Server URLs, each possibly several with commas between, as Nex takes them."""
    return tuple(url.strip() for entry in servers for url in entry.split(",") if url.strip())


def _has(secret: SecretStr) -> bool:
    return bool(secret.get_secret_value())


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port  # read for its check
    except ValueError:
        raise CredentialsInvalid(f"server {redact_url(url)}", "is not a URL") from None
    if parts.scheme not in _SCHEMES:
        raise CredentialsInvalid(f"server {redact_url(url)}", f"begins with none of {', '.join(_SCHEMES)}")
    if not parts.hostname or port == 0 or any(character.isspace() for character in url):
        raise CredentialsInvalid(f"server {redact_url(url)}", "names no host and port, such as nats://127.0.0.1:4222")


def _read(file: Path, what: str) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE + 1)
    except OSError as error:
        raise CredentialsInvalid(what, _reason(error)) from None
    if len(data) > _MAX_FILE:
        raise CredentialsInvalid(what, f"is larger than {_MAX_FILE} bytes")
    return data.decode("utf-8", "replace")


def _reason(error: OSError) -> str:
    # `str` of an OSError repeats the path; a parser's error may show what it read.
    return error.strerror or type(error).__name__


def _claims(jwt: str) -> dict[str, Any]:
    try:
        body = jwt.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):  # what is no base64, no UTF-8 or no JSON is a ValueError each
        claims = None
    if not isinstance(claims, dict):
        raise CredentialsInvalid("JWT", "is not a user's JWT")
    return claims


def _subjects(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _is_user_seed(text: str) -> bool:
    """Whether the text decodes, is a user's, and its checksum is right (which the nkeys library does not look at)."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
        nkeys.from_seed(bytearray(text.encode())).wipe()
    except (nkeys.NkeysError, binascii.Error, ValueError):
        return False
    # nkeys ends with CRC-16/XMODEM over what comes before, low byte first.
    return text.startswith("SU") and binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")


def _signer(seed: str) -> Callable[[str], bytes]:
    def sign(nonce: str) -> bytes:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        try:
            return base64.b64encode(pair.sign(nonce.encode()))
        finally:
            pair.wipe()

    return sign
