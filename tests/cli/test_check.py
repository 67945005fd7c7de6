"""`nexfn check`, `pack` and `modules` as processes."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cli import environment, nexfn, start_nexfn

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"


@pytest.fixture
def greet(tmp_path: Path) -> Path:
    """A copy of the sample to do things to."""
    shutil.copytree(SAMPLES / "greet", tmp_path / "greet")
    return tmp_path / "greet"


async def test_every_sample_is_fine() -> None:
    ended = await nexfn("check", SAMPLES)
    assert ended.code == 0, ended.out
    assert len(ended.records) == len(list(SAMPLES.glob("*/Nexfile")))
    assert all(record["ok"] and record["load_ms"] > 0 and record["events"] for record in ended.records)


async def test_a_refusal_reads_like_a_compilers(greet: Path) -> None:
    (greet / "function.py").write_text("import os\n\n\ndef handler(event, context):\n    return event.__class__\n")
    ended = await nexfn("check", "--text", greet)
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[0] == "error: greet refused: 2 problems"
    assert lines[1].startswith("  function.py:1:")
    assert "'os'" in lines[1]
    assert lines[2:4] == ["    1 | import os", lines[3]]
    assert set(lines[3]) == {" ", "|", "^"}
    assert any(line.startswith("  function.py:5:") for line in lines)


async def test_problems_are_told_as_json(greet: Path) -> None:
    (greet / "function.py").write_text("def handle(event, context):\n    return 1\n")
    (greet / "Nexfile").write_text((greet / "Nexfile").read_text().replace("greet.hello", "greet hello"))
    (greet / "events" / "ada.json").write_text("{'no': json}")
    ended = await nexfn("check", greet)
    assert ended.code == 1
    (record,) = ended.records
    places = [problem["place"] for problem in record["problems"]]
    assert places == ["Nexfile", "function.py", "events/ada.json"]
    assert record["problems"][0]["source_line"] == "    - greet hello"


async def test_a_refused_nexfile_does_not_hide_what_is_wrong_with_the_sources(greet: Path) -> None:
    (greet / "function.py").rename(greet / "main.py")
    (greet / "main.py").write_text("import os\nimport words\n\n\ndef handler(event, context):\n    return 1\n")
    (greet / "words.py").write_text("def f():\n    return f.__code__\n")
    nexfile = (greet / "Nexfile").read_text().replace("function.py", "main.py").replace("triggers:", "trigers:")
    (greet / "Nexfile").write_text(nexfile + "  handler: 7\n")
    ended = await nexfn("check", greet)
    assert ended.code == 1
    (record,) = ended.records
    places = [(problem["place"], problem.get("line")) for problem in record["problems"]]
    assert places[:2] == [("Nexfile", places[0][1]), ("Nexfile", places[1][1])]
    assert places[2:] == [("main.py", 1), ("words.py", 2)]


async def test_a_source_that_is_missing_is_told_once(greet: Path) -> None:
    (greet / "function.py").unlink()
    ended = await nexfn("check", greet)
    (record,) = ended.records
    assert [problem["code"] for problem in record["problems"]] == ["file-missing"]


async def test_a_module_that_fails_by_running_is_found_by_loading_it(greet: Path) -> None:
    (greet / "function.py").write_text("RATE = 1 / 0\n\n\ndef handler(event, context):\n    return RATE\n")
    ended = await nexfn("check", greet)
    assert ended.code == 1
    (problem,) = ended.records[0]["problems"]
    assert "ZeroDivisionError" in problem["message"]
    assert (problem["place"], problem["line"], problem["source_line"]) == ("function.py", 1, "RATE = 1 / 0")
    assert (await nexfn("check", "--no-load", greet)).code == 0


@pytest.mark.parametrize(
    ("said", "message", "advice"),
    [
        ("batch: 300", "the number 300 is more than 256", "write a number from 1 to 256"),
        ("batch: 64\n  sandbox: oneshot", "the profile 'oneshot' runs each invocation in a process", "leave batch out"),
        ("limits: {batch: 64}", "unknown key 'batch'", "it belongs at the top of the start request"),
    ],
)
async def test_batches_that_cannot_be_had_are_refused(greet: Path, said: str, message: str, advice: str) -> None:
    (greet / "Nexfile").write_text((greet / "Nexfile").read_text() + f"  {said}\n")
    ended = await nexfn("check", greet)
    assert ended.code == 1
    (problem,) = ended.records[0]["problems"]
    assert (problem["place"], problem["source_line"]) == ("Nexfile", f"  {said}".splitlines()[0])
    assert message in problem["message"]
    assert advice in problem["advice"]


async def test_the_signature_of_a_batch_handler_is_told(greet: Path) -> None:
    (greet / "Nexfile").write_text((greet / "Nexfile").read_text() + "  batch: 64\n")
    (greet / "function.py").write_text("def handler(events):\n    pass\n")
    (problem,) = (await nexfn("check", greet)).records[0]["problems"]
    assert "'handler' cannot be called with (events, context)" in problem["message"]
    assert problem["advice"] == "write it as: def handler(events, context):"


async def test_a_module_that_hangs_is_given_up(greet: Path) -> None:
    (greet / "function.py").write_text("while True:\n    pass\n\n\ndef handler(event, context):\n    pass\n")
    (greet / "Nexfile").write_text((greet / "Nexfile").read_text() + "  limits: {load_timeout: 300ms}\n")
    ended = await nexfn("check", greet)
    assert ended.code == 1
    assert ended.records[0]["problems"]


async def test_one_that_is_refused_does_not_hide_the_others(greet: Path) -> None:
    shutil.copytree(greet, greet.parent / "other")
    (greet / "Nexfile").write_text("")
    ended = await nexfn("check", greet.parent)
    assert ended.code == 1
    assert [(Path(record["folder"]).name, record["ok"]) for record in ended.records] == [
        ("greet", False),
        ("other", True),
    ]


async def test_what_an_operator_would_not_allow_is_found_with_all_the_rest(greet: Path) -> None:
    nexfile = (greet / "Nexfile").read_text()
    (greet / "Nexfile").write_text(
        nexfile + "  limits: {timeout: 1h, memory: 64GiB}\n  workers: {max: 500}\n  sandbox: process\n"
    )
    (greet / "function.py").write_text("def handler(event):\n    pass\n")
    ended = await nexfn("check", greet)
    assert ended.code == 1
    codes = [problem["code"] for problem in ended.records[0]["problems"]]
    assert codes == ["over-ceiling", "over-ceiling", "over-ceiling", "profile-not-allowed", "handler-refused"]
    over = [problem for problem in ended.records[0]["problems"] if problem["code"] == "over-ceiling"]
    assert len(over) == 3
    assert all(problem["place"] == "Nexfile" and problem["source_line"] and problem["advice"] for problem in over)


async def test_what_a_nodes_state_would_lose_is_a_warning(greet: Path) -> None:
    source = (greet / "function.py").read_text()
    (greet / "function.py").write_text(source + "\n" + "# a long story\n" * 1000)
    ended = await nexfn("check", greet)
    assert ended.code == 0
    (warning,) = ended.records[0]["warnings"]
    assert (warning["code"], warning["place"]) == ("too-large-for-kv", "Nexfile")
    text = await nexfn("check", "--format", "text", greet)
    assert text.out.startswith("ok: greet")
    assert "\nwarning: Nexfile:" in text.out


async def test_github_gets_annotations(greet: Path) -> None:
    (greet / "function.py").write_text("import os, sys\n\n\ndef handler(event, context):\n    return 1\n")
    (greet / "events" / "ada.json").write_text('{"jsn": 1}')
    ended = await nexfn("check", "--format", "github", greet, cwd=greet.parent)
    assert ended.code == 1
    first, second, third = ended.out.splitlines()
    assert first.startswith("::error file=greet/function.py,line=1,col=8,endColumn=10,title=greet%3A ")
    assert "::import of 'os' is not allowed here%0A" in first
    assert second.startswith("::error file=greet/function.py,line=1,")
    assert third.startswith("::error file=greet/events/ada.json,line=1,col=2,")
    (greet / "function.py").write_text("def handler(event, context):\n    return 1\n")
    (greet / "events" / "ada.json").write_text("{}")
    assert (await nexfn("check", "--format", "github", greet)).out == ""


async def test_watching_checks_again_on_every_save(greet: Path) -> None:
    process = await start_nexfn("check", "--watch", greet)
    assert process.stdout is not None

    async def until(kind: str) -> dict[str, Any]:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while True:
                line = await process.stdout.readline()
                assert line, "it ended"
                record: dict[str, Any] = json.loads(line)
                if record["type"] == kind:
                    return record

    try:
        assert (await until("check"))["ok"] is True
        (greet / "function.py").write_text("import os\n")  # while it may still be at the first check's end
        await until("saved")
        assert (await until("check"))["ok"] is False
        await until("watching")
        (greet / "Nexfile").unlink()
        assert (await until("check"))["ok"] is False
        # As a checkout of another version does it: the folder goes, and another one takes its name.
        shutil.rmtree(greet)
        while "no such folder" not in (await until("check")).get("message", ""):
            pass
        shutil.copytree(SAMPLES / "greet", greet)
        while not (await until("check"))["ok"]:
            pass  # it may be seen while it is copied
        (greet / "function.py").write_text("import os\n")
        while (await until("check"))["ok"]:
            pass
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, err) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_nothing_to_check_is_said(tmp_path: Path) -> None:
    ended = await nexfn("check", tmp_path)
    assert (ended.code, ended.error["problems"][0]["code"]) == (1, "nexfile-missing")


async def test_pack_prints_what_nex_takes(greet: Path) -> None:
    ended = await nexfn("pack", greet)
    assert ended.code == 0
    nexfile = yaml.safe_load(ended.out)
    assert nexfile["start_request"]["source"] == (greet / "function.py").read_text()
    assert "source_file" not in nexfile["start_request"]


async def test_pack_brings_helper_modules_along() -> None:
    nexfile = yaml.safe_load((await nexfn("pack", SAMPLES / "units")).out)
    assert list(nexfile["start_request"]["files"]) == ["quantities.py"]


async def test_pack_writes_a_file(greet: Path, tmp_path: Path) -> None:
    file = tmp_path / "packed.yaml"
    ended = await nexfn("pack", greet, "-o", file)
    assert ended.records == [{"type": "packed", "name": "greet", "file": str(file), "bytes": len(file.read_bytes())}]
    assert file.read_text() == (await nexfn("pack", greet)).out
    assert (await nexfn("pack", greet, env=environment(NEXFN_OUTPUT=str(tmp_path / "by-variable")))).code == 0
    assert (tmp_path / "by-variable").read_text() == file.read_text()


async def test_pack_refuses_what_cannot_be_deployed(greet: Path, tmp_path: Path) -> None:
    (greet / "function.py").unlink()
    ended = await nexfn("pack", greet)
    assert (ended.code, ended.out, ended.error["problems"][0]["code"]) == (1, "", "file-missing")
    assert (await nexfn("pack", SAMPLES)).error["code"] == "several-functions"
    shutil.copy(SAMPLES / "greet" / "function.py", greet)
    ended = await nexfn("pack", greet, "-o", tmp_path / "no" / "such" / "folder")
    assert (ended.code, ended.error["code"]) == (2, "not-written")


async def test_modules_lists_what_may_be_imported() -> None:
    records = (await nexfn("modules")).records
    listing = {record["module"]: record["names"] for record in records}
    assert {"json", "re", "decimal", "datetime", "urllib.parse", "zoneinfo"} <= set(listing)
    assert "os" not in listing
    assert "dumps" in listing["json"]
    text = await nexfn("modules", "--text", "statistics", "json")
    assert [line for line in text.out.splitlines() if not line.startswith(" ")] == ["statistics", "json"]
    refused = await nexfn("modules", "os")
    assert (refused.code, refused.error["code"]) == (1, "module-not-allowed")


async def test_what_an_operator_permits_is_known_from_the_settings_file(greet: Path, tmp_path: Path) -> None:
    (greet / "function.py").write_text(
        "from calendar import isleap\n\n\ndef handler(event, context):\n    return isleap(2024)\n"
    )
    file = tmp_path / "settings.yaml"
    # The rest of the file is about a machine that is not this one.
    file.write_text("creds: /nowhere/nats.creds\nmodules:\n  calendar: [isleap]\n")
    assert (await nexfn("check", greet)).code == 1
    ended = await nexfn("check", greet, "--settings-file", file)
    assert ended.code == 0, ended.out
    assert ended.records[0]["load_ms"] > 0
    (greet / "function.py").write_text("from calendar import month\n\n\ndef handler(event, context):\n    pass\n")
    ended = await nexfn("check", greet, "--settings-file", file)
    assert ended.code == 1
    assert "month" in ended.records[0]["problems"][0]["message"]


async def test_a_settings_file_that_is_wrong_is_refused_where_it_is_wrong(greet: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("modules:\n  calendar: [_secret]\n")
    ended = await nexfn("check", greet, "--settings-file", file)
    assert (ended.code, ended.out) == (2, "")
    assert '"place": "settings.yaml", "line": 1' in ended.err
    assert "'calendar' cannot give '_secret'" in ended.err
    file.write_text("modules:\n  no_such_module: [thing]\n")
    ended = await nexfn("check", greet, "--settings-file", file)
    assert ended.code == 1
    assert "no_such_module" in ended.err
