"""Functions that ran before: what was kept of them is what they start from."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from nexlet_functions.devnode.server import EmbeddedServer
from tests.support.agent import agent_bench

HELPED = {"source": "import words\n\ndef handler(event, context):\n    return words.HELLO\n"}


async def test_what_was_compiled_before_is_not_compiled_again(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    request: dict[str, Any] = {**HELPED, "files": {"words.py": "HELLO = 'hello'\n"}, "triggers": ["greet"]}
    async with agent_bench(nats_server, state_folder=tmp_path) as bench:
        before = bench.zygote._next
        await bench.start(**request)
        assert bench.zygote._next == before + 2  # one to compile it, one to run it
    async with agent_bench(nats_server, state_folder=tmp_path) as bench:
        before = bench.zygote._next
        await bench.start(existing=True, **request)
        assert bench.zygote._next == before + 1
        assert (await bench.ask("greet")).data == b"hello"
        await bench.agent.stop_workload("W1", "acme")
    assert list((tmp_path / "sources").iterdir()) == []


async def test_another_source_is_compiled_anew(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    for word in ("hello", "goodbye"):
        async with agent_bench(nats_server, state_folder=tmp_path) as bench:
            request: dict[str, Any] = {**HELPED, "files": {"words.py": f"HELLO = '{word}'\n"}, "triggers": ["greet"]}
            await bench.start(existing=True, **request)
            assert (await bench.ask("greet")).data == word.encode()


async def test_a_form_that_does_not_do_is_compiled_again(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Whole by its checksum, and yet no code: somebody has meddled with it."""
    async with agent_bench(nats_server, state_folder=tmp_path) as bench:
        await bench.start(triggers=["greet"])
    (file,) = (tmp_path / "sources").iterdir()
    kept = file.read_bytes()
    head = len(b"compiled 1\n") + 32
    form = importlib.util.MAGIC_NUMBER + b"nonsense"
    file.write_bytes(kept[:head] + hashlib.sha256(form).digest() + form)
    async with agent_bench(nats_server, state_folder=tmp_path) as bench:
        refused = await bench.refusal(existing=True, triggers=["greet"])
        assert refused.status == 503, "which is tried again"
        await bench.start(existing=True, triggers=["greet"])
        assert (await bench.ask("greet")).data == b"hello, world"
    assert file.read_bytes() == kept
