"""The attack corpus: each row is asked of a real client, with a real server that answers as badly as the row says."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from nexlet_functions.grants.failures import CallFailed
from nexlet_functions.grants.http_requests import HttpRequest
from tests.support.http_server import Asked, answer
from tests.support.outside import METHODS, Outside

CORPUS = Path(__file__).parent / "attacks.json"
ROWS: list[dict[str, Any]] = json.loads(CORPUS.read_text())["attacks"]
ENOUGH = 60.0  # seconds, for what does not end by time
SOON = 0.15  # for what does; whatever it is, nothing else ends it


def said(text: Any) -> bytes:
    parts = [text] if isinstance(text, str) else text
    return b"".join((part if isinstance(part, str) else part[0] * part[1]).encode("latin-1") for part in parts)


def packed(recipe: dict[str, Any], encoding: str) -> bytes:
    data = recipe["text"].encode() if "text" in recipe else bytes(recipe["zeros"])
    if "text" not in recipe:
        if encoding == "gzip":
            data = gzip.compress(data)
        else:
            form = zlib.compressobj(wbits=-zlib.MAX_WBITS if recipe.get("raw") else zlib.MAX_WBITS)
            data = form.compress(data) + form.flush()
    data = data * recipe.get("parts", 1)
    data = data[: len(data) - recipe.get("cut", 0)]
    if spoiled := recipe.get("spoil"):
        whole = bytearray(data)
        whole[spoiled] ^= 0xFF
        data = bytes(whole)
    return data


def prepare(outside: Outside, row: dict[str, Any]) -> None:
    port = str(outside.server.port)
    outside.names.table |= row.get("names", {})
    if "redirect" in row:
        location = row["redirect"].replace("{port}", port)
        outside.server.pages["/"] = answer(b"", row["status"], Location=location)
        outside.server.pages["/again"] = answer(b"reached")
    elif "packed" in row:
        outside.server.pages["/"] = answer(packed(row["packed"], row["encoding"]), Content_Encoding=row["encoding"])
    elif "answer" in row:

        async def misbehave(_: Asked, writer: asyncio.StreamWriter) -> None:
            whole = said(row["answer"])
            for start in range(0, len(whole), 1 if row.get("drip") else max(1, len(whole))):
                writer.write(whole[start : start + 1] if row.get("drip") else whole)
                await writer.drain()
                if row.get("drip"):
                    await asyncio.sleep(0.01)
            if row.get("end"):
                raise ConnectionResetError
            await asyncio.Event().wait()

        outside.server.pages["/"] = misbehave
    else:
        outside.server.pages["/"] = answer(b"reached")


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
async def test_attack(outside: Outside, row: dict[str, Any]) -> None:
    prepare(outside, row)
    client = outside.client(
        *row.get("hosts", ["api.example.com:{port}"]), methods=row.get("methods", METHODS), max_response=256 * 1024
    )
    request = HttpRequest(
        row.get("method", "GET"),
        row["url"].replace("{port}", str(outside.server.port)),
        tuple((name, value) for name, value in row.get("headers", [])),
        row.get("body", "").encode(),
    )
    loop = asyncio.get_running_loop()
    with pytest.raises(CallFailed) as failed:
        await client.call(request, loop.time() + (SOON if row.get("silent") else ENOUGH))
    assert failed.value.failure == row["expected"], failed.value.text
    assert row["says"] in failed.value.text
    assert len(failed.value.text) < 500
    assert failed.value.text.isprintable()
    if row["category"] not in ("redirect", "answer", "compression"):
        assert outside.server.connections == 0, "it connected before it refused"
