"""The list of modules and the proxies made from it."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nexlet_sandboxes.language import modules
from nexlet_sandboxes.language.modules.document import page
from nexlet_sandboxes.language.names import attribute_refusal
from tests.support.authored import RecordingHost, run

PROMISED = [
    "base64",
    "binascii",
    "bisect",
    "collections",
    "collections.abc",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "operator",
    "random",
    "re",
    "secrets",
    "statistics",
    "string",
    "struct",
    "textwrap",
    "time",
    "typing",
    "unicodedata",
    "urllib.parse",
    "uuid",
    "zlib",
    "zoneinfo",
]
ALL = sorted(modules.ALLOWED)


def as_any(module: modules.ModuleProxy | None) -> Any:
    """A proxy, as the author's code has it: with attributes that no type checker knows of."""
    assert module is not None
    return module


@pytest.mark.parametrize("name", PROMISED)
def test_what_is_promised_is_there(name: str) -> None:
    assert name in modules.ALLOWED
    assert modules.names(name)


@pytest.mark.parametrize("name", ALL)
def test_a_proxy_holds_the_names_of_the_list_and_no_others(name: str) -> None:
    proxy = modules.proxy(name, RecordingHost())
    assert proxy is not None
    assert frozenset(given for given in dir(proxy) if not given.startswith("_")) == modules.names(name)
    for given in modules.names(name) or ():
        getattr(proxy, given)  # raises where a slot was left empty


@pytest.mark.parametrize("name", ALL)
def test_no_name_of_the_list_is_one_that_an_author_could_not_write(name: str) -> None:
    assert [given for given in modules.ALLOWED[name].all_names() if attribute_refusal(given) is not None] == []


@pytest.mark.parametrize("name", ALL)
def test_the_list_says_what_the_running_python_has(name: str) -> None:
    """A name that is marked as newer must be newer: one that this version has already is misdated."""
    row = modules.ALLOWED[name]
    source = importlib.import_module(name)
    for given, since in row.since.items():
        assert given in row.all_names()
        assert hasattr(source, given) == (sys.version_info >= since), f"{name}.{given}"


@pytest.mark.parametrize("name", ALL)
def test_what_is_said_to_be_missing_is_missing_and_says_what_to_write(name: str) -> None:
    row = modules.ALLOWED[name]
    proxy = modules.proxy(name, RecordingHost())
    assert not set(row.missing) & set(row.all_names())
    for given, advice in row.missing.items():
        assert modules.missing(name, given) == advice
        with pytest.raises(AttributeError, match=re.escape(f"module {name!r} gives no {given!r} here: {advice}")):
            getattr(proxy, given)


def test_what_is_not_on_the_list_is_not_there() -> None:
    for name in ("os", "sys", "builtins", "importlib", "urllib.request", "json.scanner", "collections.nothing", ""):
        assert modules.proxy(name, RecordingHost()) is None
        assert modules.names(name) is None
        assert modules.missing(name, "x") == ""


def test_a_package_gives_its_submodules_and_they_are_the_same_objects() -> None:
    host = RecordingHost()
    for package, child in (("urllib", "parse"), ("collections", "abc"), ("json", "decoder")):
        assert getattr(modules.proxy(package, host), child) is modules.proxy(f"{package}.{child}", host)


def test_a_module_is_one_object_for_its_host() -> None:
    first, second = RecordingHost(), RecordingHost()
    assert modules.proxy("json", first) is modules.proxy("json", second)
    assert modules.proxy("logging", first) is modules.proxy("logging", first)
    mine = modules.proxy("logging", first)
    assert modules.proxy("logging", second) is not mine


def test_the_listing_is_sorted_and_whole() -> None:
    listing = modules.listing()
    assert list(listing) == ALL
    for name, names in listing.items():
        assert names == sorted(modules.names(name) or ())


class TestProxy:
    def proxy(self) -> Any:
        return modules.make_proxy("shop.prices", {"one": 1, "two": print})

    def test_it_reads_as_a_module(self) -> None:
        proxy = self.proxy()
        assert repr(proxy) == "<module 'shop.prices'>"
        assert proxy.one == 1
        assert proxy.two is print
        with pytest.raises(AttributeError, match=r"'shop\.prices module' object has no attribute 'three'"):
            proxy.three()

    def test_functions_in_it_do_not_become_methods(self) -> None:
        def price(item: str) -> str:
            return item

        assert as_any(modules.make_proxy("m", {"price": price})).price("tea") == "tea"

    def test_nothing_can_be_written_to_it(self) -> None:
        proxy = self.proxy()
        for name in ("one", "three", "__class__", "__dict__"):
            with pytest.raises(AttributeError):
                setattr(proxy, name, 2)
            with pytest.raises(AttributeError):
                delattr(proxy, name)
        assert proxy.one == 1

    def test_it_has_no_dictionary(self) -> None:
        assert not hasattr(self.proxy(), "__dict__")

    def test_it_cannot_be_copied_or_pickled(self) -> None:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied"):
                attempt(self.proxy())

    def test_it_does_not_follow_the_mapping_it_was_made_from(self) -> None:
        values: dict[str, object] = {"one": 1}
        proxy = as_any(modules.make_proxy("m", values))
        values["one"] = 2
        assert proxy.one == 1

    @pytest.mark.parametrize("name", ["__class__", "__slots__", "__dict__", "two words", ""])
    def test_names_that_would_change_the_proxy_itself_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="cannot be a name"):
            modules.make_proxy("m", {name: 1})


@pytest.mark.parametrize(
    ("statement", "expression", "expected"),
    [
        ("import json", "json.dumps([1])", "[1]"),
        ("import urllib.parse", "urllib.parse.quote('a b')", "a%20b"),
        ("import urllib.parse as p", "p.quote('a b')", "a%20b"),
        ("from urllib import parse", "parse.quote('a b')", "a%20b"),
        ("from urllib.parse import quote as q", "q('a b')", "a%20b"),
        ("import collections.abc", "isinstance([], collections.abc.Sequence)", True),
        ("from collections import abc", "isinstance({}, abc.Mapping)", True),
        ("import json.decoder", "issubclass(json.decoder.JSONDecodeError, ValueError)", True),
        ("from __future__ import annotations", "1", 1),
    ],
)
def test_imports_as_authors_write_them(statement: str, expression: str, expected: object) -> None:
    assert run(f"{statement}\ndef main():\n    return {expression}\n") == expected


def test_the_page_is_made_from_the_table() -> None:
    written = Path(__file__).parents[3] / "docs" / "modules.md"
    assert written.read_text() == page(), "run: python -m nexlet_sandboxes.language.modules > docs/modules.md"


def test_after_preload_nothing_needs_a_file() -> None:
    """In a process of its own: after `preload`, opening a file fails, and every module and the lazy corners work."""
    script = """
import sys
from nexlet_sandboxes.language import modules
modules.preload()

def refuse(event, args):
    if event in ("open", "os.listdir", "os.scandir", "import"):
        raise PermissionError(f"{event} {args[:1]}")
sys.addaudithook(refuse)

class Host:
    builtins, modules, memory_exceeded = {}, {}, False
    def write(self, stream, text): pass
    def log(self, level, message, fields): pass
    def remaining(self): return 1.0

host = Host()
found = {name: modules.proxy(name, host) for name in modules.ALLOWED}
zoneinfo, datetime, time = found["zoneinfo"], found["datetime"], found["time"]
for key in sorted(zoneinfo.available_timezones()):
    datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo(key)).utcoffset()
datetime.datetime.strptime("2026-11-23 10:00", "%Y-%m-%d %H:%M").astimezone()
time.strptime("2026", "%Y"), time.localtime(), time.strftime("%c"), time.sleep(0)
found["uuid"].uuid4(), found["secrets"].token_hex(), found["random"].random()
found["hashlib"].new("sha256", b"x"), found["hmac"].new(b"k", b"m", "sha256").hexdigest()
found["decimal"].Decimal("1.10") / 3, found["statistics"].NormalDist(0, 1).cdf(0.5)
found["unicodedata"].name("a"), found["ipaddress"].ip_network("10.0.0.0/8")
found["logging"].getLogger("x").warning("y %s", 1)
modules.reseed()
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]}
    )
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


def test_reseeding_gives_a_forked_process_its_own_numbers() -> None:
    random = as_any(modules.proxy("random", RecordingHost()))
    state = random.getstate()
    before = random.random()
    random.setstate(state)
    assert random.random() == before
    random.setstate(state)
    modules.reseed()
    assert random.getstate() != state


def test_workers_forked_from_one_process_have_different_numbers() -> None:
    """In a process of its own, as the zygote is: here nothing is forked beside running threads."""
    script = """
import os
from nexlet_sandboxes.language.modules import preload
from nexlet_sandboxes.language.modules.safe.randomness import generator
preload()
preload()
for _ in range(3):
    if os.fork() == 0:
        print(generator.random(), flush=True)
        os._exit(0)
    os.wait()
print(generator.random())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert len(set(done.stdout.split())) == 4


def test_the_numbers_of_a_function_are_not_those_of_the_process() -> None:
    import random as real

    real.seed(7)
    expected = real.random()
    real.seed(7)
    run("import random\ndef main():\n    random.seed(1)\n    return random.random()\n")
    assert real.random() == expected
