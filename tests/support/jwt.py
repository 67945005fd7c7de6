"""Operator mode in a few lines: a server's configuration, and credentials as a Nex node with a signing key mints them.

Source of the formats: NATS JWT v2 (https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt);
of the permissions: `internal/credentials/vendor.go` of Nex.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nats
import nkeys
from nats.aio.client import RawCredentials
from pydantic import SecretStr

from nexlet_models.connection import NatsConnectionData

__all__ = ["Operator", "creds_text"]


def creds_text(jwt: str, seed: str) -> str:
    """A creds file, as `nsc generate creds` writes it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


class _Key:
    def __init__(self, prefix: int) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self._pair.public_key.decode()

    def sign(self, subject: str, name: str, nats: dict[str, Any], *, expires: int | None = None) -> str:
        claims = {"iat": 1_700_000_000, "iss": self.public, "sub": subject, "name": name, "nats": nats | {"version": 2}}
        if expires is not None:
            claims["exp"] = expires
        claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
        text = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(claims)}"
        return f"{text}.{base64.urlsafe_b64encode(self._pair.sign(text.encode())).decode().rstrip('=')}"


class Operator:
    """One operator with one account. `config` goes into the server, `creds` to who connects."""

    def __init__(self) -> None:
        self._operator, self._system, self._account = operator, system, _ = (
            _Key(nkeys.PREFIX_BYTE_OPERATOR),
            _Key(nkeys.PREFIX_BYTE_ACCOUNT),
            _Key(nkeys.PREFIX_BYTE_ACCOUNT),
        )
        no_limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        self._signing = _Key(nkeys.PREFIX_BYTE_ACCOUNT)
        limits = {"type": "account", "limits": no_limits | {"wildcards": True}}
        self._claims = limits | {"signing_keys": [self._signing.public]}
        self._users: dict[str, str] = {}
        jwts = {
            system.public: operator.sign(system.public, "SYS", limits),
            self.account: operator.sign(self.account, "NEX", self._claims),
        }
        preload = "\n".join(f"  {public}: {jwt}" for public, jwt in jwts.items())
        self.config = (
            f"operator: {operator.sign(operator.public, 'OP', {'type': 'operator'})}\n"
            f"system_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{\n{preload}\n}}"
        )

    def resolved_in(self, folder: Path) -> str:
        """The same configuration with a resolver that keeps accounts in a folder and takes new claims for them."""
        return self.config.replace("resolver: MEMORY", f'resolver: {{ type: full, dir: "{folder}" }}')

    async def revoke(self, url: str, name: str) -> None:
        """Have the account revoke its user of that name, as `nsc push` tells a server's resolver."""
        key = _Key(nkeys.PREFIX_BYTE_USER)
        jwt = self._system.sign(key.public, "sys", {"type": "user", "subs": -1, "data": -1, "payload": -1})
        revoked = self._claims | {"revocations": {self._users[name]: int(time.time())}}
        client = await nats.connect(url, user_credentials=RawCredentials(creds_text(jwt, key.seed)))
        try:
            subject = f"$SYS.REQ.ACCOUNT.{self.account}.CLAIMS.UPDATE"
            answer = await client.request(subject, self._operator.sign(self.account, "NEX", revoked).encode())
        finally:
            await client.close()
        assert json.loads(answer.data)["data"]["code"] == 200, answer.data

    @property
    def account(self) -> str:
        """The public key of the account, which a node is given with its signing key."""
        return self._account.public

    @property
    def signing_seed(self) -> str:
        """The seed with which a node may mint users of the account."""
        return self._signing.seed

    def user(
        self,
        name: str,
        *,
        publish: list[str] | None = None,
        subscribe: list[str] | None = None,
        responses: int = 0,
        expires: int | None = None,
    ) -> tuple[str, str]:
        """A user's JWT and seed. No permissions given means all of them; `expires` is in seconds since 1970."""
        key = _Key(nkeys.PREFIX_BYTE_USER)
        self._users[name] = key.public
        nats: dict[str, Any] = {
            "type": "user",
            "pub": {"allow": publish} if publish is not None else {},
            "sub": {"allow": subscribe} if subscribe is not None else {},
            "subs": -1, "data": -1, "payload": -1,
        }  # fmt: skip
        if responses:
            nats["resp"] = {"max": responses, "ttl": 0}
        return self._account.sign(key.public, name, nats, expires=expires), key.seed

    def creds(self, url: str, name: str, **permissions: Any) -> NatsConnectionData:
        """Connection data for a new user."""
        jwt, seed = self.user(name, **permissions)
        return NatsConnectionData(nats_servers=(url,), nats_user_jwt=SecretStr(jwt), nats_user_seed=SecretStr(seed))

    def registration(self, url: str, node: str, agent: str) -> NatsConnectionData:
        """What Nex gives an agent to register with."""
        return self.creds(url, agent, publish=[f"$NEX.SVC.{node}.agent.REGISTER.{agent}"], subscribe=["_INBOX.>"])

    def agent(
        self, url: str, node: str, agent: str, nexus: str = "nexus", *, expires: int | None = None
    ) -> NatsConnectionData:
        """What Nex gives an agent to work with."""
        api, feed = f"$NEX.SVC.{node}.agent", f"$NEX.FEED.{agent}"
        publish = [f"{api}.HEARTBEAT.{agent}", f"{feed}.events.*", f"{feed}.logs.*.stdout", f"{feed}.logs.*.stderr"]
        served = ("STOPWORKLOAD.*", "GETWORKLOAD.*", "QUERYWORKLOADS", "PING", "SETLAMEDUCK")
        subscribe = [f"{api}.{agent}.STARTWORKLOAD.*", f"{api}.{agent}.PING", *(f"{api}.{one}" for one in served)]
        subscribe += [f"$NEX.SVC.{nexus}.agent.PINGWORKLOAD.*", "$SRV.>", "_INBOX.>"]
        publish.append("_INBOX.>")
        return self.creds(url, agent, publish=publish, subscribe=subscribe, responses=1, expires=expires)

    def workload(self, url: str, namespace: str, workload: str) -> NatsConnectionData:
        """What Nex gives a workload."""
        return self.creds(
            url, workload, publish=["_INBOX.>"], subscribe=[f"$NEX.FEED.{namespace}.logs.>", "_INBOX.>"], responses=1
        )


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
