"""A packed function reaches the nexlet byte for byte through Nex's own command line, whose YAML reader is another one.

Runs where there is a `nex`, in NEX_BIN or on PATH.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from nexlet_functions.control import ControlClient
from nexlet_functions.nexfile import read_function

NEX = os.environ.get("NEX_BIN") or shutil.which("nex")

HANDLER = "def handler(event, context):\n    return X\n"
SOURCES = [
    "X='a'   \n\n\n" + HANDLER + "\n\n\n",
    "   \nX=1\n" + HANDLER,
    "X='\t'\n" + HANDLER,
    "X='é😀\u2028'\n" + HANDLER,
    "X='''\n  a\n # b: c\n- d\n%x\n---\n...\n'''\n" + HANDLER,
    "#" + "x" * 300 + "\nX=1\n" + HANDLER,
    "\n\nX=1\n" + HANDLER.rstrip("\n"),
    "X='\x7f\x0b'\n" + HANDLER,
    "X='\ufeff\u0085'\n" + HANDLER,
]
ENVIRONMENT = {"A": "on", "B": "1:30", "C": "x: y # z", "D": "\t ", "E": "2026-01-02", "F": "null", "G": "1_000"}

StartLive = Callable[..., Awaitable[Any]]


@pytest.mark.skipif(NEX is None, reason="there is no `nex`, neither in NEX_BIN nor on PATH; no package registry has it")
async def test_packed_sources_arrive_as_they_are(live: StartLive, tmp_path: Path) -> None:
    dev = await live("dev", Path(__file__).parents[2] / "samples" / "greet", "--port", "0")
    url = (await dev.until("ready"))["url"]
    client: Client = await nats.connect(url)
    control = ControlClient(client, "demo", nodes=1)
    for number, source in enumerate(SOURCES):
        folder = tmp_path / f"f{number}"
        folder.mkdir()
        (folder / "function.py").write_bytes(source.encode())
        nexfile = {
            "name": folder.name,
            "type": "python",
            "lifecycle": "function",
            "start_request": {
                "source_file": "function.py",
                "triggers": [f"packed.{folder.name}"],
                "environment": ENVIRONMENT,
            },
        }
        (folder / "Nexfile").write_text(json.dumps(nexfile))
        (tmp_path / "packed").write_text(read_function(folder).pack())
        assert NEX is not None
        process = await asyncio.create_subprocess_exec(
            NEX, "workload", "start", "-f", str(tmp_path / "packed"), "-s", url, "--namespace", "demo"
        )
        assert await asyncio.wait_for(process.wait(), 30) == 0

    arrived = {summary.name: summary.id for summary in await control.workloads() if summary.name.startswith("f")}
    assert len(arrived) == len(SOURCES)
    for name, workload_id in arrived.items():
        request = json.loads((await control._fetch(workload_id, "")).run_request)
        assert request["source"] == SOURCES[int(name[1:])]
        assert request["environment"] == ENVIRONMENT
    await client.close()
