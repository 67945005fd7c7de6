"""A function's folder, read and packed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nexlet_functions.nexfile import FunctionRefused, find_functions, read_function
from tests.support import unprivileged

SOURCE = "def handler(event, context):\n    return 'ok'\n"
NEXFILE = "name: demo\ntype: python\nlifecycle: function\nstart_request:\n  source_file: function.py\n"

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes a function's folder of file names and texts; a Nexfile and a function.py are there unless given."""

    def make(nexfile: str = NEXFILE, /, **files: str | bytes) -> Path:
        path = tmp_path / "demo"
        path.mkdir()
        (path / "Nexfile").write_text(nexfile)
        for name, text in ({"function": SOURCE} | files).items():
            data = text if isinstance(text, bytes) else text.encode()
            (path / f"{name}.py").write_bytes(data)
        return path

    return make


def refusal(path: Path) -> list[str]:
    with pytest.raises(FunctionRefused) as refused:
        read_function(path)
    return [f"{problem.location()} {problem.message}" for problem in refused.value.problems]


def test_a_folder_is_read_whole(folder: Folder) -> None:
    function = read_function(
        folder(
            "name: demo\ndescription: A demo\ntype: python\nlifecycle: function\ntags: {zone: eu}\n"
            "start_request:\n  source_file: function.py\n  triggers: [demo.run]\n  limits: {timeout: 300ms}\n"
        )
    )
    assert (function.name, function.type, function.lifecycle) == ("demo", "python", "function")
    assert (function.description, function.tags, function.source_name) == ("A demo", {"zone": "eu"}, "function.py")
    assert function.request == {"source": SOURCE, "triggers": ["demo.run"], "limits": {"timeout": "300ms"}}
    assert function.start.limits.timeout == 0.3
    assert SOURCE not in repr(function)


def test_pack_is_what_any_yaml_reader_takes(folder: Folder) -> None:
    text = read_function(folder()).pack()
    assert yaml.safe_load(text) == {
        "name": "demo",
        "type": "python",
        "lifecycle": "function",
        "start_request": {"source": SOURCE},
    }
    assert "source: |\n    def handler" in text


def test_a_packed_nexfile_is_a_nexfile(folder: Folder, tmp_path: Path) -> None:
    packed = read_function(folder()).pack()
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "Nexfile").write_text(packed)
    assert read_function(tmp_path / "again").pack() == packed


def test_a_nexfile_may_be_json(folder: Folder) -> None:
    value = {"name": "demo", "type": "python", "lifecycle": "function", "start_request": {"source_file": "function.py"}}
    assert read_function(folder(json.dumps(value, indent="\t"))).request["source"] == SOURCE


def test_helpers_that_are_imported_come_along_and_nothing_else_does(folder: Folder) -> None:
    path = folder(
        function="import prices\nfrom json import dumps\ndef handler(event, context):\n    import late\n",
        prices="from rates import RATE\n",
        rates="import prices\nRATE = 1\n",
        late="",
        unused="",
        test_function="import prices\n",
        conftest="",
    )
    assert sorted(read_function(path).request["files"]) == ["late.py", "prices.py", "rates.py"]


def test_tests_never_come_along_even_if_they_are_imported(folder: Folder) -> None:
    path = folder(function="import conftest, test_x, y_test\n", conftest="", test_x="", y_test="")
    assert "files" not in read_function(path).request


def test_helpers_can_be_listed(folder: Folder) -> None:
    path = folder(NEXFILE + "  files: [plugin.py]\n", plugin="NAME = 1\n")
    assert read_function(path).request["files"] == {"plugin.py": "NAME = 1\n"}


def test_a_source_that_does_not_parse_is_packed_all_the_same(folder: Folder) -> None:
    assert read_function(folder(function="def handler(:\n")).request["source"] == "def handler(:\n"


def test_line_ends_and_byte_order_marks_are_those_of_python(folder: Folder) -> None:
    assert read_function(folder(function="\ufeffx = 1\r\ny = 2\r")).request["source"] == "x = 1\ny = 2\n"


def test_everything_wrong_is_said_at_once_where_it_is(folder: Folder) -> None:
    path = folder(
        "name: bad one\ntpye: python\nlifecycle: service\nstart_request:\n  source_file: functoin.py\n"
        "  handlr: run\n  triggers:\n    - a..b\n    - subject: $SYS.>\n  limits: {timeout: -3s}\n"
        "  environment: {PORT: 80}\n"
    )
    expected = [
        "Nexfile:1:7 'bad one' cannot be a function's name",
        "Nexfile:2:1 unknown key 'tpye'",
        "Nexfile:3:12 lifecycle 'service' is not served",
        "Nexfile:5:16 functoin.py: no such file",
        "Nexfile:6:3 unknown key 'handlr'",
        "Nexfile:8:7 triggers[0]: 'a..b'",
        "Nexfile:9:16 triggers[1].subject: '$SYS.>'",
        "Nexfile:10:21 limits.timeout: '-3s'",
        "Nexfile:11:23 environment.PORT: ",
    ]
    # What follows is the start request's own wording.
    assert [line[: len(start)] for line, start in zip(refusal(path), expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("nexfile", "expected"),
    [
        ("- a\n", "Nexfile is not a mapping, but a list"),
        ("name: x\n", "Nexfile 'type' is missing"),
        (NEXFILE + "  source: x\n", "Nexfile:6:3 both 'source_file' and 'source'"),
        (NEXFILE + "  uri: nats://b/o\n", "Nexfile:6:3 both 'source_file' and 'uri'"),
        (NEXFILE.replace("source_file: function.py", "triggers: [a]"), "Nexfile:4:1 nothing says where the source is"),
        (
            NEXFILE.replace("function.py", "../function.py"),
            "Nexfile:5:16 '../function.py' is not a file of this folder",
        ),
        (NEXFILE.replace("function.py", "/etc/passwd"), "Nexfile:5:16 '/etc/passwd' is not a file of this folder"),
        (NEXFILE.replace("function.py", "7"), "Nexfile:5:16 a file's name is expected, not a number"),
        (NEXFILE + "  files: prices.py\n", "Nexfile:6:10 'files' is text, not a list of file names"),
        (NEXFILE + "handler: run\n", "Nexfile:6:1 unknown key 'handler'"),
        (NEXFILE.replace("demo", '""'), "Nexfile:1:7 '' cannot be a function's name: it is empty"),
        (NEXFILE + "tags: [a]\n", "Nexfile:6:7 'tags' is a list, not a mapping"),
        ("name: a\ntype: python\nlifecycle: function\nstart_request: x\n", "Nexfile:4:16 'start_request' is text"),
    ],
)
def test_what_a_nexfile_may_not_say(folder: Folder, nexfile: str, expected: str) -> None:
    assert any(each.startswith(expected) for each in refusal(folder(nexfile)))


def test_a_key_that_belongs_one_level_deeper_is_sent_there(folder: Folder) -> None:
    with pytest.raises(FunctionRefused) as refused:
        read_function(folder(NEXFILE + "triggers: [a]\n"))
    assert refused.value.problems[0].advice == "'triggers' belongs below 'start_request'"


@pytest.mark.parametrize(
    ("files", "begin"),
    [("", "begin with 'name: "), ((NEXFILE, b""), "define a handler(event, context)")],
)
def test_what_is_empty_is_told_how_to_begin(folder: Folder, files: tuple[str, bytes] | str, begin: str) -> None:
    with pytest.raises(FunctionRefused) as refused:
        read_function(folder(files) if isinstance(files, str) else folder(files[0], function=files[1]))
    (problem,) = refused.value.problems
    assert (problem.message, problem.advice[: len(begin)]) == ("is empty", begin)


def test_a_source_that_is_not_utf8_is_refused_with_its_line(folder: Folder) -> None:
    assert refusal(folder(function=b"x = 1\ny = '\xff'\n")) == ["function.py:2 not UTF-8: byte 0xff on line 2"]


def test_a_folder_without_a_nexfile_says_what_one_has(tmp_path: Path) -> None:
    with pytest.raises(FunctionRefused, match="no Nexfile here"):
        read_function(tmp_path)


def test_functions_are_found_in_a_folder_of_folders_and_by_one_of_their_files(folder: Folder) -> None:
    path = folder()
    assert find_functions([path]) == [path]
    assert find_functions([path.parent]) == [path]
    assert find_functions([path / "Nexfile", path / "function.py", path]) == [path]


def test_the_folder_of_secrets_beside_functions_is_passed_over_where_several_are_named(folder: Folder) -> None:
    path = folder()
    secrets = path.parent / "secrets"
    (secrets / "demo").mkdir(parents=True)
    assert find_functions([path, secrets]) == [path]
    with pytest.raises(FunctionRefused, match="no Nexfile here"):
        find_functions([secrets])
    with pytest.raises(FunctionRefused, match="no Nexfile here"):
        find_functions([path, secrets / "demo"])


def test_where_there_is_no_function_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(FunctionRefused, match="no Nexfile here"):
        find_functions([tmp_path])
    with pytest.raises(FunctionRefused, match="no such folder"):
        find_functions([tmp_path / "missing"])


BESIDE_A_LOCKED_ONE = """
import json, os, tempfile
from pathlib import Path
from nexlet_functions.cli.devloop.folders import folders_in, places_of
from nexlet_functions.nexfile import FunctionRefused, find_functions

with tempfile.TemporaryDirectory() as made:
    os.chdir(made)
    for name in ("greet", "data"):
        Path(name).mkdir()
        (Path(name) / "Nexfile").write_text("")
    os.chmod("data", 0)
    found = [find_functions([Path()]), folders_in([Path()]), sorted(places_of([Path()]))]
    try:
        find_functions([Path("data")])
    except FunctionRefused as refused:
        said = str(refused)
    os.chmod("data", 0o700)
print(json.dumps([[[str(each) for each in one] for one in found], said]))
"""


def test_a_folder_that_we_may_not_look_into_hides_no_other() -> None:
    ordinary = [] if os.geteuid() else [sys.executable, "-m", "tests.support.unprivileged"]
    command = [*ordinary, sys.executable, "-c", BESIDE_A_LOCKED_ONE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == unprivileged.IMPOSSIBLE:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    found, said = json.loads(done.stdout)
    assert found == [["greet"], ["greet"], [".", "greet"]]
    assert said == "data refused: 1 problem\n  cannot be read: Permission denied"
