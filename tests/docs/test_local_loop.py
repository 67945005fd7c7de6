"""What the page about the local loop shows of files and of a running `dev`: it is done, and comes out as shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.cli import nexfn, start_nexfn
from tests.support.documents import ROOT, Background, blocks, matches

SHOWN = {
    block.options["of"]: block.text for block in blocks((ROOT / "docs" / "local-loop.md").read_text()) if block.kind
}
MESSAGE = '{"name": "Grace", "customer": {"card": "4111"}}'


def varying(text: str) -> str:
    """`text` for comparison: any digest and any time will do."""
    return re.sub(r"\b[0-9a-f]{12}\b", "...", re.sub(r"[\d.]+ ms", "... ms", text))


async def test_it_comes_out_as_shown(tmp_path: Path) -> None:
    assert (await nexfn("init", "hello", cwd=tmp_path)).code == 0
    recording = ("--record", "kept", "--mask", "customer.card")
    dev = Background(await start_nexfn("dev", "hello", "--text", "-p", "0", *recording, cwd=tmp_path))
    try:
        await dev.until("...ready: 1 function, try:\n...What happens, as it does:\n...")
        url = re.findall(r"nats://\S+", dev.out)[0]
        sent = await nexfn("invoke", "-s", url, "hello.greet", MESSAGE, "-H", "Authorization: Bearer abc")
        assert sent.code == 0
        await dev.until("...\nrecorded  hello  kept/hello/ok-....json\n...")
        nexfile = tmp_path / "hello" / "Nexfile"
        nexfile.write_text(nexfile.read_text().replace("GREETING: Hello", "GREETING: Hi"))
        await dev.until(f"...\n{varying(SHOWN['redeployed'])}...")
    finally:
        assert await dev.end() == 0

    (file,) = (tmp_path / "kept").glob("*/*.json")
    recorded, shown = json.loads(file.read_text()), json.loads(SHOWN["recorded"])
    shown["recorded"]["at"] = recorded["recorded"]["at"]
    assert recorded == shown
    replayed = await nexfn("replay", "kept", "hello", "--text", cwd=tmp_path)
    assert replayed.code == 1
    assert matches(varying(SHOWN["differs"]), replayed.out), replayed.out
