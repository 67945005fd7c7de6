"""Sources from folders and from a real object store, each way in which they can be refused, and pins."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.js.object_store import ObjectStore

from nexlet_functions.devnode.server import EmbeddedServer
from nexlet_functions.functions.artifacts import Artifact, Artifacts, _open_beneath, digest_of, object_of
from nexlet_functions.functions.refusals import Refusal, status_of
from nexlet_functions.natsio.connection import Connection
from nexlet_functions.natsio.credentials import Credentials
from nexlet_models.start_request import parse_start_request

SOURCE = "def handler(event, context):\n    return 'ä'\n"
LIMIT = 300_000


async def fetch(connection: object, *folders: Path, **request: str) -> Artifact:
    artifacts = Artifacts(folders=lambda: folders, timeout=20.0)
    assert connection is None or isinstance(connection, Connection)
    parsed = parse_start_request(json.dumps(request))
    return await artifacts.fetch(parsed, connection, limit=LIMIT)  # type: ignore[arg-type]  # None: not to be asked


async def refusal(connection: object, *folders: Path, **request: str) -> tuple[str, int]:
    with pytest.raises(Refusal) as refused:
        await fetch(connection, *folders, **request)
    (problem,) = refused.value.problems
    assert problem.advice, "a refusal says the next step"
    return problem.text(), status_of(refused.value.problems)


class TestInline:
    async def test_its_digest_is_that_of_its_bytes(self) -> None:
        artifact = await fetch(None, source=SOURCE)
        assert artifact == Artifact(SOURCE, hashlib.sha256(SOURCE.encode()).hexdigest(), "")
        assert SOURCE not in repr(artifact)

    async def test_a_checksum_that_fits_passes_in_either_case(self) -> None:
        assert (await fetch(None, source=SOURCE, sha256=digest_of(SOURCE.encode()).upper())).source == SOURCE

    async def test_a_checksum_that_differs_names_both(self) -> None:
        text, status = await refusal(None, source=SOURCE, sha256="0" * 64)
        assert digest_of(SOURCE.encode()) in text
        assert "0" * 64 in text
        assert status == 400

    @pytest.mark.parametrize(("source", "expected"), [(" \n", "is empty"), ("x" * (LIMIT + 1), "larger than")])
    async def test_nothing_and_too_much(self, source: str, expected: str) -> None:
        text, status = await refusal(None, source=source)
        assert expected in text
        assert status == (413 if "larger" in expected else 400)


class TestFiles:
    async def test_a_file_in_an_allowed_folder(self, tmp_path: Path) -> None:
        file = tmp_path / "functions" / "deep" / "greet.py"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"\xef\xbb\xbf" + SOURCE.encode())
        artifact = await fetch(None, tmp_path, uri=f"file://{file}")
        assert artifact.source == SOURCE
        assert artifact.sha256 == digest_of(file.read_bytes())

    async def test_without_folders_there_are_no_files(self, tmp_path: Path) -> None:
        (tmp_path / "greet.py").write_text(SOURCE)
        text, status = await refusal(None, uri=f"file://{tmp_path / 'greet.py'}")
        assert "none is allowed here" in text
        assert status == 403

    async def test_elsewhere_is_refused_and_the_folders_are_named(self, tmp_path: Path) -> None:
        text, status = await refusal(None, tmp_path, uri="file:///etc/passwd")
        assert f"allowed: file://{tmp_path}" in text
        assert status == 403

    @pytest.mark.parametrize("path", ["../outside.py", "inner/../../outside.py", "link.py", "linked/outside.py"])
    async def test_no_way_leads_out(self, tmp_path: Path, path: str) -> None:
        allowed, outside = tmp_path / "allowed", tmp_path / "outside.py"
        (allowed / "inner").mkdir(parents=True)
        outside.write_text(SOURCE)
        (allowed / "link.py").symlink_to(outside)
        (allowed / "linked").symlink_to(tmp_path)
        text, status = await refusal(None, allowed, uri=f"file://{allowed}/{path}")
        assert "is not allowed" in text
        assert status == 403

    async def test_a_link_that_stays_inside_is_followed(self, tmp_path: Path) -> None:
        # A mounted Kubernetes ConfigMap consists of such links.
        (tmp_path / "..2026").mkdir()
        (tmp_path / "..2026" / "greet.py").write_text(SOURCE)
        (tmp_path / "..data").symlink_to("..2026")
        (tmp_path / "greet.py").symlink_to("..data/greet.py")
        assert (await fetch(None, tmp_path, uri=f"file://{tmp_path}/greet.py")).source == SOURCE

    def test_what_is_exchanged_for_a_link_meanwhile_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "greet.py").write_text(SOURCE)
        (tmp_path / "folder").symlink_to("real")
        (tmp_path / "real" / "link.py").symlink_to("greet.py")
        os.close(_open_beneath(tmp_path, ("real", "greet.py")))
        for parts in (("folder", "greet.py"), ("real", "link.py")):
            with pytest.raises(OSError) as refused:  # by its number
                _open_beneath(tmp_path, parts)
            assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR)

    async def test_what_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.py")
        (tmp_path / "folder.py").mkdir()
        (tmp_path / "loop.py").symlink_to("loop.py")
        for name, expected in (
            ("pipe.py", "no regular file"),
            ("folder.py", "no regular file"),
            ("missing.py", "no such file"),
            ("loop.py", ""),
        ):
            text, status = await refusal(None, tmp_path, uri=f"file://{tmp_path}/{name}")
            assert expected in text
            assert status == 404

    async def test_a_file_that_is_too_large_is_not_read_whole(self, tmp_path: Path) -> None:
        with (tmp_path / "huge.py").open("wb") as file:
            file.truncate(1 << 40)
        text, status = await refusal(None, tmp_path, uri=f"file://{tmp_path}/huge.py")
        assert "larger than" in text
        assert status == 413

    async def test_a_file_that_is_not_text_names_the_line(self, tmp_path: Path) -> None:
        (tmp_path / "latin.py").write_bytes(b"# one\n# caf\xe9\n")
        text, status = await refusal(None, tmp_path, uri=f"file://{tmp_path}/latin.py")
        assert "byte 0xe9 on line 2" in text
        assert status == 400


@pytest.fixture
async def connection(nats_server: EmbeddedServer) -> AsyncIterator[Connection]:
    connection = await Connection.open(Credentials(servers=(nats_server.url,)))
    yield connection
    await connection.close()


@pytest.fixture
async def store(nats_server: EmbeddedServer) -> AsyncIterator[ObjectStore]:
    client = await nats.connect(nats_server.url)
    yield await client.jetstream().create_object_store("functions")
    await client.close()


class TestObjects:
    @pytest.mark.parametrize(
        ("uri", "name"), [("nats://functions/greet", "greet_latest"), ("nats://functions/a/greet:v1.2", "a/greet_v1.2")]
    )
    async def test_an_object_is_found_by_name_and_tag(
        self, connection: Connection, store: ObjectStore, uri: str, name: str
    ) -> None:
        await store.put(name, SOURCE.encode())
        artifact = await fetch(connection, uri=uri)
        assert artifact == Artifact(SOURCE, digest_of(SOURCE.encode()), uri)

    async def test_one_in_many_pieces_is_put_together(self, connection: Connection, store: ObjectStore) -> None:
        source = SOURCE + "# " + "x" * (LIMIT - 100)
        await store.put("other_latest", b"y" * 200_000)  # pieces of another object lie between
        await store.put("greet_latest", source.encode())
        assert (await fetch(connection, uri="nats://functions/greet")).source == source

    async def test_the_newest_of_a_name_counts(self, connection: Connection, store: ObjectStore) -> None:
        await store.put("greet_latest", b"# old\n" * 50_000)
        await store.put("greet_latest", SOURCE.encode())
        assert (await fetch(connection, uri="nats://functions/greet")).source == SOURCE

    async def test_what_is_not_there(self, connection: Connection, store: ObjectStore) -> None:
        await store.put("gone_latest", SOURCE.encode())
        await store.delete("gone_latest")
        for uri in ("nats://functions/greet:v9", "nats://functions/gone", "nats://nowhere/greet"):
            text, status = await refusal(connection, uri=uri)
            assert f"{uri} does not exist" in text
            assert "nats object put" in text
            assert status == 404

    async def test_too_large_is_known_before_it_is_read(self, connection: Connection, store: ObjectStore) -> None:
        await store.put("huge_latest", b"x" * (LIMIT + 1))
        before = connection.client.stats["out_msgs"]
        text, status = await refusal(connection, uri="nats://functions/huge")
        assert "larger than" in text
        assert status == 413
        assert connection.client.stats["out_msgs"] == before + 1, "one question, for what the object is"

    async def test_a_link_to_an_object_is_followed_once(
        self, connection: Connection, store: ObjectStore, nats_server: EmbeddedServer
    ) -> None:
        await store.put("greet_latest", SOURCE.encode())
        for name, target in (("link_latest", "greet_latest"), ("chain_latest", "link_latest"), ("bucket_latest", "")):
            link = {"bucket": "functions", **({"name": target} if target else {})}
            await put_meta(nats_server, name, {"options": {"link": link}})
        assert (await fetch(connection, uri="nats://functions/link")).source == SOURCE
        for name in ("chain", "bucket"):
            assert "is a link" in (await refusal(connection, uri=f"nats://functions/{name}"))[0]

    @pytest.mark.parametrize(
        "meta",
        [
            {},
            {"size": 5, "nuid": "abc"},
            {"size": "many", "nuid": "abc", "digest": "SHA-256="},
            {"size": 5, "nuid": "a.>", "digest": "SHA-256="},
            {"size": -1, "nuid": "abc", "digest": "SHA-256="},
            {"size": 0, "nuid": "abc", "digest": "SHA-256=wrong"},
        ],
    )
    async def test_a_damaged_object_is_refused(
        self, connection: Connection, store: ObjectStore, nats_server: EmbeddedServer, meta: dict[str, object]
    ) -> None:
        await put_meta(nats_server, "bad_latest", meta)
        assert "is damaged" in (await refusal(connection, uri="nats://functions/bad"))[0]

    async def test_a_changed_piece_is_noticed(
        self, connection: Connection, store: ObjectStore, nats_server: EmbeddedServer
    ) -> None:
        info = await store.put("greet_latest", SOURCE.encode())
        client = await nats.connect(nats_server.url)
        stream = client.jetstream()
        await stream.purge_stream("OBJ_functions", subject=f"$O.functions.C.{info.nuid}")
        await stream.publish(f"$O.functions.C.{info.nuid}", b"#" * len(SOURCE.encode()))
        await client.close()
        assert "is damaged" in (await refusal(connection, uri="nats://functions/greet"))[0]

    async def test_a_refused_permission_is_named(self) -> None:
        users = """authorization { users = [
          { user: admin, password: a }
          { user: workload, password: w, permissions: { publish: ["_INBOX.>"], subscribe: ["_INBOX.>"] } }
        ] }"""
        async with EmbeddedServer(config=users) as server:
            url = server.url.replace("nats://", "nats://workload:w@")
            async with await Connection.open(Credentials(servers=(url,))) as limited:
                text, status = await refusal(limited, uri="nats://functions/greet")
        assert "permissions violation" in text.lower()
        assert "$js.api.stream.msg.get.obj_functions" in text.lower()
        assert status == 403

    async def test_a_server_that_does_not_answer_is_waited_for_so_long(
        self, connection: Connection, store: ObjectStore, nats_server: EmbeddedServer
    ) -> None:
        await store.put("greet_latest", SOURCE.encode())
        request = parse_start_request('{"uri": "nats://functions/greet"}')
        artifacts = Artifacts(folders=lambda: (), timeout=0.1)
        nats_server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(Refusal, match=r"did not arrive within 0\.1 s") as refused:
                await artifacts.fetch(request, connection, limit=LIMIT)
        finally:
            nats_server.signal(signal.SIGCONT)
        assert status_of(refused.value.problems) == 503

    async def test_a_server_without_jetstream_says_so(self) -> None:
        async with (
            EmbeddedServer(jetstream=False) as server,
            await Connection.open(Credentials(servers=(server.url,))) as plain,
        ):
            text, status = await refusal(plain, uri="nats://functions/greet")
        assert "JetStream is not enabled" in text
        assert status == 503


async def put_meta(server: EmbeddedServer, name: str, meta: dict[str, object]) -> None:
    """Write what a store says of an object, as only a broken or hostile publisher would."""
    client = await nats.connect(server.url)
    subject = f"$O.functions.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
    await client.jetstream().publish(subject, json.dumps({"name": name, "bucket": "functions", **meta}).encode())
    await client.close()


@pytest.mark.parametrize("uri", ["nats:///greet", "nats://bucket", "nats://bucket/", "nats://bucket/greet:"])
def test_an_address_without_a_part_is_refused(uri: str) -> None:
    with pytest.raises(Refusal, match="no place of a source"):
        object_of(uri)
