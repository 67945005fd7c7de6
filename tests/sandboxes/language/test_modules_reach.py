"""What the allowed names lead to, followed to the end; and what an operator is told of other modules."""

from __future__ import annotations

import functools
import operator
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nexlet_sandboxes.language import modules
from nexlet_sandboxes.language.modules import auditing
from nexlet_sandboxes.language.modules.auditing import reach
from nexlet_sandboxes.program import Program
from tests.support.authored import RecordingHost, run

ALL = sorted(modules.ALLOWED)
HOST = RecordingHost()

USES_ON_PURPOSE: dict[str, str] = {
    # Generated from names that are checked to be identifiers first, and from nothing else of the author's.
    "collections.namedtuple": "sys._getframe sys._getframemodulename eval",
    # `inspect.get_annotations` is asked for them as they stand: it evaluates none.
    "dataclasses.dataclass": "sys.modules inspect.signature inspect.get_annotations exec",
    # Reads the name of the calling module. `eval` is that of ForwardRef, which only `get_type_hints` comes to.
    "typing.": "sys sys._getframe sys._getframemodulename sys.modules eval compile",
    # Reads the database, when the platform starts.
    "zoneinfo.": "pathlib.Path importlib.util.find_spec",
}
"""What trusted code does behind an allowed name, by the beginning of the name, after a person has read that code."""


def expected(path: str) -> frozenset[str]:
    return frozenset(
        f"uses {used}" for start, uses in USES_ON_PURPOSE.items() if path.startswith(start) for used in uses.split()
    )


@pytest.mark.parametrize("name", ALL)
def test_no_allowed_name_leads_anywhere(name: str) -> None:
    proxy = modules.proxy(name, HOST)
    found = [
        f"{name}.{finding}"
        for given in sorted(modules.names(name) or ())
        for finding in reach(given, getattr(proxy, given))
        if finding.what not in expected(f"{name}.{given}")
    ]
    assert found == []


def made() -> dict[str, Callable[[], Any]]:
    """Things that an author gets by calling what is allowed, by how they are written."""

    class Modules:
        def __getattr__(self, name: str) -> Any:
            return modules.proxy(name, HOST)

    m: Any = Modules()
    parse = m.urllib.parse

    @m.contextlib.contextmanager  # type: ignore[untyped-decorator]
    def manager() -> Iterator[int]:
        yield 1

    class Color(m.enum.Enum):  # type: ignore[misc]
        RED = 1

    return {
        "collections.ChainMap()": lambda: m.collections.ChainMap({}, {}),
        "collections.Counter()": lambda: m.collections.Counter("aab"),
        "collections.OrderedDict()": lambda: m.collections.OrderedDict(a=1),
        "collections.UserDict()": lambda: m.collections.UserDict(a=1),
        "collections.UserList()": lambda: m.collections.UserList([1]),
        "collections.defaultdict()": lambda: m.collections.defaultdict(int),
        "collections.deque()": lambda: m.collections.deque([1], 3),
        "collections.namedtuple()": lambda: m.collections.namedtuple("P", "a b"),
        "collections.namedtuple()()": lambda: m.collections.namedtuple("P", "a b")(1, 2),
        "contextlib.closing()": lambda: m.contextlib.closing(1),
        "contextlib.contextmanager()": lambda: manager,
        "contextlib.contextmanager()()": manager,
        "contextlib.nullcontext()": lambda: m.contextlib.nullcontext(1),
        "contextlib.suppress()": lambda: m.contextlib.suppress(ValueError),
        "csv.DictReader()": lambda: m.csv.DictReader(["a,b", "1,2"]),
        "csv.DictWriter()": lambda: m.csv.DictWriter(m.io.StringIO(), ["a"]),
        "csv.Sniffer()": lambda: m.csv.Sniffer(),
        "csv.get_dialect()": lambda: m.csv.get_dialect("excel"),
        "csv.reader()": lambda: m.csv.reader(["a,b"]),
        "csv.writer()": lambda: m.csv.writer(m.io.StringIO()),
        "dataclasses.field()": lambda: m.dataclasses.field(default=1, metadata={"a": 1}),
        "datetime.datetime.now()": lambda: m.datetime.datetime.now(m.datetime.UTC),
        "datetime.timedelta()": lambda: m.datetime.timedelta(1),
        "datetime.timezone()": lambda: m.datetime.timezone(m.datetime.timedelta(hours=1)),
        "decimal.Context()": lambda: m.decimal.Context(prec=3),
        "decimal.Decimal()": lambda: m.decimal.Decimal("1.1"),
        "decimal.localcontext()": lambda: m.decimal.localcontext(prec=5),
        "difflib.Differ()": lambda: m.difflib.Differ(),
        "difflib.SequenceMatcher()": lambda: m.difflib.SequenceMatcher(None, "ab", "bc"),
        "difflib.unified_diff()": lambda: m.difflib.unified_diff(["a"], ["b"]),
        "enum.Enum subclass": lambda: Color,
        "enum.Enum member": lambda: Color.RED,
        "enum.auto()": lambda: m.enum.auto(),
        "enum.member()": lambda: m.enum.member(1),
        "fractions.Fraction()": lambda: m.fractions.Fraction(1, 3),
        "functools.cached_property()": lambda: m.functools.cached_property(len),
        "functools.cmp_to_key()": lambda: m.functools.cmp_to_key(max)(1),
        "functools.lru_cache()": lambda: m.functools.lru_cache(max),
        "functools.partial()": lambda: m.functools.partial(max, 1),
        "functools.singledispatch()": lambda: m.functools.singledispatch(max),
        "hashlib.blake2b()": lambda: m.hashlib.blake2b(b"x"),
        "hashlib.sha256()": lambda: m.hashlib.sha256(b"x"),
        "heapq.merge()": lambda: m.heapq.merge([1], [2]),
        "hmac.new()": lambda: m.hmac.new(b"k", b"m", "sha256"),
        "io.BytesIO()": lambda: m.io.BytesIO(b"x"),
        "io.BytesIO().getbuffer()": lambda: m.io.BytesIO(b"x").getbuffer(),
        "io.StringIO()": lambda: m.io.StringIO("x"),
        "ipaddress.ip_address()": lambda: m.ipaddress.ip_address("::1"),
        "ipaddress.ip_interface()": lambda: m.ipaddress.ip_interface("10.0.0.1/8"),
        "ipaddress.ip_network()": lambda: m.ipaddress.ip_network("10.0.0.0/8"),
        "ipaddress.ip_interface() v6": lambda: m.ipaddress.ip_interface("::1/64"),
        "ipaddress.ip_network() v6": lambda: m.ipaddress.ip_network("::/64"),
        "itertools.groupby()": lambda: m.itertools.groupby("aab"),
        "itertools.tee()": lambda: m.itertools.tee([1]),
        "json.JSONDecodeError()": lambda: m.json.JSONDecodeError("x", "y", 0),
        "json.JSONDecoder()": lambda: m.json.JSONDecoder(),
        "json.JSONEncoder()": lambda: m.json.JSONEncoder(),
        "json.JSONEncoder().iterencode()": lambda: m.json.JSONEncoder().iterencode([1]),
        "logging.getLogger()": lambda: m.logging.getLogger("x"),
        "operator.attrgetter()": lambda: m.operator.attrgetter("x"),
        "operator.itemgetter()": lambda: m.operator.itemgetter("x"),
        "operator.methodcaller()": lambda: m.operator.methodcaller("x"),
        "random.Random()": lambda: m.random.Random(1),
        "re.compile()": lambda: m.re.compile("(?P<a>x)"),
        "re.compile().scanner()": lambda: m.re.compile("x").scanner("x"),
        "re.error()": lambda: m.re.error("x", "y", 0),
        "re.finditer()": lambda: m.re.finditer("x", "x"),
        "re.match()": lambda: m.re.match("(x)", "x"),
        "statistics.NormalDist()": lambda: m.statistics.NormalDist(),
        "statistics.linear_regression()": lambda: m.statistics.linear_regression([1, 2], [1, 2]),
        "string.Template()": lambda: m.string.Template("$a"),
        "struct.Struct()": lambda: m.struct.Struct("<I"),
        "time.gmtime()": lambda: m.time.gmtime(0),
        "typing.Annotated[]": lambda: m.typing.Annotated[int, 1],
        "typing.Generic[]": lambda: m.typing.Generic[m.typing.TypeVar("T")],
        "typing.List[]": lambda: m.typing.List[m.typing.Optional["int"]],
        "typing.NewType()": lambda: m.typing.NewType("X", int),
        "typing.ParamSpec()": lambda: m.typing.ParamSpec("P"),
        "typing.TypeVar()": lambda: m.typing.TypeVar("T", bound="int"),
        "typing.Type[]": lambda: m.typing.Type[int],
        "urllib.parse.urlsplit()": lambda: parse.urlsplit("http://a:1/b?c#d"),
        "urllib.parse.urlparse()": lambda: parse.urlparse(b"http://a:1/b?c#d"),
        "urllib.parse.urldefrag()": lambda: parse.urldefrag("http://a#b"),
        "uuid.uuid4()": lambda: m.uuid.uuid4(),
        "zlib.compressobj()": lambda: m.zlib.compressobj(),
        "zlib.decompressobj()": lambda: m.zlib.decompressobj(),
        "zoneinfo.ZoneInfo()": lambda: m.zoneinfo.ZoneInfo("UTC"),
        "ZoneInfoNotFoundError()": lambda: m.zoneinfo.ZoneInfoNotFoundError("x"),
    }


MADE = made()


@pytest.mark.parametrize("name", MADE)
def test_nothing_that_calls_give_leads_anywhere(name: str) -> None:
    one, other = MADE[name](), MADE[name]()
    found = []
    for finding in reach("value", one):
        if finding.kind == "shared":
            # A list in an object is its owner's business, unless the next object has the same one.
            if not shared(one, other, finding.path):
                continue
        elif finding.what in expected(name):
            continue
        found.append(str(finding))
    assert found == []


def shared(one: object, other: object, path: str) -> bool:
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    for attribute, index in steps:
        one, other = (
            getattr(value, attribute) if attribute else operator.getitem(value, int(index))  # type: ignore[call-overload]
            for value in (one, other)
        )
    return one is other


def test_every_allowed_class_that_can_be_called_has_been_called_for_this() -> None:
    """A class added to the table without a recipe above would go unseen."""
    seen = {type(build()) for build in MADE.values()} | {
        base for build in MADE.values() for base in type(build()).__mro__
    }
    unseen = []
    for name in ALL:
        proxy = modules.proxy(name, HOST)
        for given in sorted(modules.names(name) or ()):
            value = getattr(proxy, given)
            if isinstance(value, type) and value not in seen and not uninteresting(value):
                unseen.append(f"{name}.{given}")
    assert unseen == []


def uninteresting(kind: type) -> bool:
    """Exceptions, abstract classes, and classes whose objects hold nothing but plain values."""
    return (
        issubclass(kind, BaseException | tuple | str)
        or hasattr(kind, "__abstractmethods__")
        or kind.__module__ in {"typing", "abc", "_csv", "itertools"}
        or bool(getattr(kind, "__members__", ()))
        or kind.__name__ in PLAIN
    )


PLAIN = {
    *(
        "BytesIO",
        "ContextDecorator",
        "Dialect",
        "Generic",
        "InitVar",
        "Logger",
        "blake2s",
        "date",
        "excel",
        "excel_tab",
    ),
    *("unix_dialect", "nonmember", "time", "tzinfo", "Flag", "IntEnum", "IntFlag", "StrEnum", "chain", "SupportsInt"),
}


class TestReach:
    """The test above means something only if `reach` finds what there is."""

    def kinds(self, value: object) -> set[tuple[str, str]]:
        return {(finding.kind, finding.path) for finding in reach("x", value)}

    def test_modules(self) -> None:
        class Holder:
            inner = types.SimpleNamespace(system=sys)

        assert ("module", "x") in self.kinds(re)
        assert ("module", "x.inner.system") in self.kinds(Holder)
        assert ("module", "x.inner.system") in self.kinds(Holder())

    def test_metaclasses(self) -> None:
        class Holder:
            kind = type

        assert ("metaclass", "x.kind") in self.kinds(Holder)

    def test_builtins_that_no_function_gets(self) -> None:
        assert ("builtin", "x") in self.kinds(open)
        assert ("builtin", "x.func") in self.kinds(functools.partial(eval, "1"))

    def test_attributes_by_name(self) -> None:
        for value in (getattr, operator.attrgetter, functools.wraps):
            assert ("attributes", "x") in self.kinds(value)

    def test_shared_things_that_can_be_changed(self) -> None:
        import textwrap

        assert ("shared", "x.unicode_whitespace_trans") in self.kinds(textwrap.TextWrapper)

    def test_open_files(self) -> None:
        with open("/dev/null") as file:
            assert ("file", "x") in self.kinds(file)

    def test_code_that_reaches_outside(self) -> None:
        import linecache
        import os
        import shutil
        import tempfile

        def direct() -> str:
            return os.getcwd()

        def through_another() -> str:
            return direct()

        def late() -> object:
            import subprocess

            return subprocess

        def gives() -> object:
            return os

        class Reader:
            def read(self, path: str) -> str:
                with open(path) as file:
                    return file.read()

        assert [finding.what for finding in reach("x", direct)] == ["uses os.getcwd"]
        assert [finding.what for finding in reach("x", through_another)] == ["uses os.getcwd"]
        assert [finding.what for finding in reach("x", late)] == ["uses import subprocess"]
        assert [finding.what for finding in reach("x", gives)] == ["uses os"]
        assert "uses open" in {finding.what for finding in reach("x", Reader)}
        for value in (shutil.copy, tempfile.mkdtemp, linecache.getline, os.system, os.path.exists):
            assert list(reach("x", value))

    def test_a_private_part_of_a_module_is_told_by_the_name_it_is_imported_by(self) -> None:
        import pathlib

        def files() -> int:
            return len(list(pathlib.Path("/").iterdir()))

        from pathlib import Path as Elsewhere

        def aliased() -> int:
            return len(list(Elsewhere("/").iterdir()))

        assert [finding.what for finding in reach("x", files)] == ["uses pathlib.Path"]
        assert [finding.what for finding in reach("x", aliased)] == ["uses pathlib.Path"]

    def test_what_is_harmless_is_not_reported(self) -> None:
        import os

        def token() -> bytes:
            return os.urandom(8)

        assert list(reach("x", token)) == []
        assert list(reach("x", frozenset({1}))) == []


class TestAudit:
    """What an operator is told before a module of their choice is allowed."""

    @pytest.mark.parametrize(
        ("module", "name", "told"),
        [
            ("os", "path", "path is the module posixpath, with everything in it"),
            ("os", "environ", "environ is a _Environ that everybody shares"),
            ("os", "getcwd", "getcwd is posix.getcwd"),
            ("calendar", "day_name", ""),
            ("textwrap", "TextWrapper", "unicode_whitespace_trans is a dict that everybody shares"),
            ("collections", "nothing", "nothing is not there: module collections has no such name"),
            ("json", "_default_encoder", "_default_encoder is not a name that a function could write"),
            ("types", "FunctionType", ""),
            ("shutil", "rmtree", "rmtree uses"),
            ("pathlib", "Path", "Path uses"),
        ],
    )
    def test_findings(self, module: str, name: str, told: str) -> None:
        found = modules.audit(module, [name])
        if told:
            assert any(told in line for line in found), found

    def test_a_harmless_module_has_none(self) -> None:
        assert modules.audit("colorsys", ["rgb_to_hsv", "hsv_to_rgb"]) == []
        assert modules.audit("graphlib", ["CycleError"]) == []

    def test_a_module_that_is_not_there(self) -> None:
        with pytest.raises(ImportError):
            modules.audit("no_such_module_anywhere", ["x"])


class TestOperatorModules:
    def test_a_function_imports_what_the_operator_permits(self) -> None:
        source = (
            "import colorsys\nfrom colorsys import hls_to_rgb\ndef main():\n    return colorsys.rgb_to_hsv(0, 0, 0)\n"
        )
        permitted = {"colorsys": ("rgb_to_hsv", "hls_to_rgb")}
        assert run(source, modules=permitted) == (0.0, 0.0, 0)

    def test_and_nothing_else_of_it(self) -> None:
        proxy = modules.operator_proxy("colorsys", ["rgb_to_hsv"])
        assert not hasattr(proxy, "hls_to_rgb")

    @pytest.mark.parametrize(
        ("module", "name", "error", "why"),
        [
            ("os", "path", ValueError, "is a whole module; allow 'posixpath'"),
            ("json", "_default_encoder", ValueError, "cannot write this name"),
            ("json", "nothing", ImportError, "has no name 'nothing'"),
        ],
    )
    def test_refusals(self, module: str, name: str, error: type[Exception], why: str) -> None:
        with pytest.raises(error, match=re.escape(why)):
            modules.operator_proxy(module, [name])


def test_the_program_carries_the_operators_modules() -> None:
    assert Program(source="", modules={"colorsys": ("rgb_to_hsv",)}).modules["colorsys"] == ("rgb_to_hsv",)


def test_auditing_bounds_what_it_follows() -> None:
    class Endless:
        @property
        def next(self) -> Endless:
            return Endless()

    assert list(reach("x", Endless())) == []
    assert auditing.__all__
