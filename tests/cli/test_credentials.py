"""Every kind of NATS credential, from the command line to a server that asks for it, and what is never shown."""

from __future__ import annotations

from pathlib import Path

import nkeys

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.cli import environment, nexfn
from tests.support.jwt import Operator

TLS = Path(__file__).parents[1] / "natsio" / "tls"


async def let_in(*arguments: str | Path, **variables: str) -> None:
    """Asks on a subject that nobody listens on: who gets that far was let in."""
    ended = await nexfn("invoke", *arguments, "nowhere", env=environment(**variables))
    assert ended.error["code"] == "no-responders", ended.err


async def kept_out(*arguments: str | Path, secret: str = "", **variables: str) -> None:
    ended = await nexfn("invoke", *arguments, "nowhere", env=environment(**variables))
    assert (ended.code, ended.error["code"]) == (3, "connect-failed")
    assert not secret or secret not in ended.err


async def test_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t-o-k-e-n\n")
    async with EmbeddedServer(config='authorization { token: "t-o-k-e-n" }', jetstream=False) as server:
        await let_in("-s", server.url, "--token-file", tmp_path / "token")
        await let_in("-s", server.url, NEXFN_TOKEN="t-o-k-e-n")
        await let_in("-s", server.url, NEXFN_TOKEN_FILE=str(tmp_path / "token"))
        await kept_out("-s", server.url, secret="w-r-o-n-g", NEXFN_TOKEN="w-r-o-n-g")
        await kept_out("-s", server.url)


async def test_nkey(tmp_path: Path) -> None:
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER).decode()
    public = nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
    (tmp_path / "seed").write_text(seed)
    async with EmbeddedServer(
        config=f"authorization {{ users = [ {{ nkey: {public} }} ] }}", jetstream=False
    ) as server:
        await let_in("-s", server.url, "--nkey", tmp_path / "seed")
        await let_in(NEXFN_SERVERS=server.url, NEXFN_NKEY=str(tmp_path / "seed"))


async def test_creds(tmp_path: Path) -> None:
    operator = Operator()
    jwt, seed = operator.user("ada")
    file = tmp_path / "ada.creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    async with EmbeddedServer(config=operator.config, jetstream=False) as server:
        await let_in("-s", server.url, "--creds", file)
        file.write_text("not that\n")
        ended = await nexfn("invoke", "-s", server.url, "--creds", file, "nowhere")
        assert "holds no user JWT with its seed" in ended.err


async def test_tls() -> None:
    config = (
        f'tls {{ cert_file: "{TLS}/server.pem", key_file: "{TLS}/server.key", ca_file: "{TLS}/ca.pem", verify: true, '
        "handshake_first: true }"
    )
    files = ("--tls-ca", TLS / "ca.pem", "--tls-cert", TLS / "client.pem", "--tls-key", TLS / "client.key")
    async with EmbeddedServer(config=config, jetstream=False) as server:
        await let_in("-s", server.url, *files, "--tls-first")
        await let_in("-s", server.url, *files, NEXFN_TLS_FIRST="1")
        await kept_out("-s", server.url, "--tls-first")
