"""Which modules a function may import, and which of their names: the whole list, and what is not on it does not exist.

A row names what is taken from the standard library as it is, what is replaced by a version of our own (`ours`), what
depends on the process it runs in (`hosted`), and what authors may look for and not find, with what to write instead
(`missing`). A name is taken as it is only if nothing that can be reached from it, by attributes an author may read or
by calling it, leads to a module, a file, the interpreter's insides or anything shared that can be changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from nexlet_sandboxes.language.modules.safe import collections as safe_collections
from nexlet_sandboxes.language.modules.safe import (
    contexts,
    copying,
    dataclassing,
    enums,
    functions,
    journal,
    kinds,
    operators,
    randomness,
    timing,
    zones,
)

if TYPE_CHECKING:
    from nexlet_sandboxes.language.host import Host

__all__ = ["ALLOWED", "Module"]

Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Module:
    """One row.

    Attributes:
        plain: names taken as they are.
        ours: makes our versions, by name; None where there are none. A function, so that a table costs no imports.
        our_names: the names that `ours` makes.
        hosted: makes the names that need the host.
        hosted_names: the names that `hosted` makes.
        children: submodules that are attributes of this one, such as `parse` of `urllib`.
        since: the Python version that a name came with, where an older one is supported.
        missing: names that are not given, with what to write instead.
        note: how it differs from what authors know, for the documentation; Markdown, "" where it does not.
    """

    plain: tuple[str, ...] = ()
    ours: Callable[[], Values] | None = None
    our_names: tuple[str, ...] = ()
    hosted: Callable[[Host], Values] | None = None
    hosted_names: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    since: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def all_names(self) -> tuple[str, ...]:
        """Every name in every supported version of Python, sorted."""
        return tuple(sorted({*self.plain, *self.our_names, *self.hosted_names, *self.children}))

    def has(self, name: str) -> bool:
        """Whether the running Python has the name, which is one of `all_names`."""
        return sys.version_info >= self.since.get(name, (3, 0))

    def plain_values(self, module: str) -> dict[str, object]:
        """What is taken as it is, from the standard library's module of that name.

        Raises:
            AttributeError: the table names something that the running Python does not have.
        """
        if not self.plain:
            return {}
        source = import_module(module)
        return {name: getattr(source, name) for name in self.plain if self.has(name)}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _taken(*names: str, of: object) -> Callable[[], Values]:
    return lambda: {name: getattr(of, name) for name in names}


def _random() -> Values:
    import random

    made: dict[str, object] = {
        name: getattr(randomness.generator, name) for name in randomness.METHODS if hasattr(randomness.generator, name)
    }
    return {**made, "Random": random.Random}


def _hashlib() -> Values:
    import hashlib

    return {
        "algorithms_available": frozenset(hashlib.algorithms_available),
        "algorithms_guaranteed": frozenset(hashlib.algorithms_guaranteed),
    }


_NO_FILES = "a function has no files; io.StringIO and io.BytesIO are files in memory"
_NO_METACLASS = "a function's classes have no metaclass of their own; derive from the given base class"
_NO_ASYNC = "there is no async code in a function"

ALLOWED: Mapping[str, Module] = MappingProxyType(
    {
        "__future__": Module(plain=("annotations",)),
        "abc": Module(
            note="`@abstractmethod` is for functions of your own.",
            plain=("ABC",),
            ours=_taken("abstractmethod", of=functions),
            our_names=("abstractmethod",),
            missing={
                "ABCMeta": "derive from abc.ABC",
                "abstractproperty": "@property above @abstractmethod",
                "abstractclassmethod": "@classmethod above @abstractmethod",
                "abstractstaticmethod": "@staticmethod above @abstractmethod",
            },
        ),
        "base64": Module(
            plain=_words("""
                a85decode a85encode b16decode b16encode b32decode b32encode b32hexdecode b32hexencode b64decode
                b64encode b85decode b85encode decodebytes encodebytes standard_b64decode standard_b64encode
                urlsafe_b64decode urlsafe_b64encode z85decode z85encode
            """),
            since={"z85decode": (3, 13), "z85encode": (3, 13)},
            missing={"encode": "base64.encodebytes takes bytes", "decode": "base64.decodebytes takes bytes"},
        ),
        "binascii": Module(
            plain=_words("""
                Error Incomplete a2b_base64 a2b_hex a2b_qp a2b_uu b2a_base64 b2a_hex b2a_qp b2a_uu crc32 crc_hqx
                hexlify unhexlify
            """)
        ),
        "bisect": Module(plain=_words("bisect bisect_left bisect_right insort insort_left insort_right")),
        "cmath": Module(
            plain=_words("""
                acos acosh asin asinh atan atanh cos cosh e exp inf infj isclose isfinite isinf isnan log log10 nan
                nanj phase pi polar rect sin sinh sqrt tan tanh tau
            """)
        ),
        "collections": Module(
            note="`namedtuple` takes no `module`.",
            plain=_words("ChainMap Counter OrderedDict UserDict UserList defaultdict deque"),
            ours=_taken("namedtuple", of=safe_collections),
            our_names=("namedtuple",),
            children=("abc",),
            missing={"UserString": "derive from str"},
        ),
        "collections.abc": Module(
            plain=_words("""
                Callable Collection Container Generator Hashable ItemsView Iterable Iterator KeysView Mapping
                MappingView MutableMapping MutableSequence MutableSet Reversible Sequence Set Sized ValuesView
            """),
            missing=dict.fromkeys(_words("AsyncGenerator AsyncIterable AsyncIterator Awaitable Coroutine"), _NO_ASYNC),
        ),
        "contextlib": Module(
            note="`suppress` does not hide that the memory ran out: the invocation ends as `memory`.",
            plain=_words("AbstractContextManager ContextDecorator closing contextmanager nullcontext"),
            hosted=lambda host: {"suppress": contexts.suppressor(host)},
            hosted_names=("suppress",),
            missing={
                "ExitStack": "use one with statement for each context manager",
                "redirect_stdout": "write to an io.StringIO of your own",
                "redirect_stderr": "write to an io.StringIO of your own",
                "chdir": "a function has no files",
                **dict.fromkeys(
                    _words("""
                        AbstractAsyncContextManager AsyncContextDecorator AsyncExitStack aclosing asynccontextmanager
                    """),
                    _NO_ASYNC,
                ),
            },
        ),
        "copy": Module(
            note=(
                "`deepcopy` takes no `memo`. `replace` is there in every version of Python; it changes fields of "
                "dataclasses, named tuples, dates and times."
            ),
            plain=("Error",),
            ours=_taken("copy", "deepcopy", "replace", of=copying),
            our_names=("copy", "deepcopy", "replace"),
        ),
        "csv": Module(
            plain=_words("""
                Dialect DictReader DictWriter Error QUOTE_ALL QUOTE_MINIMAL QUOTE_NONE QUOTE_NONNUMERIC QUOTE_NOTNULL
                QUOTE_STRINGS Sniffer excel excel_tab field_size_limit get_dialect list_dialects reader unix_dialect
                writer
            """),
            since={"QUOTE_NOTNULL": (3, 12), "QUOTE_STRINGS": (3, 12)},
            missing=dict.fromkeys(
                ("register_dialect", "unregister_dialect"), "give the dialect, or its settings, to csv.reader itself"
            ),
        ),
        "dataclasses": Module(
            note="`@dataclass` is for classes of your own. Annotations are not evaluated.",
            plain=_words("FrozenInstanceError InitVar KW_ONLY MISSING asdict astuple fields is_dataclass replace"),
            ours=_taken("dataclass", "field", of=dataclassing),
            our_names=("dataclass", "field"),
            missing={"make_dataclass": "write the class with @dataclass", "Field": "dataclasses.field() makes one"},
        ),
        "datetime": Module(plain=_words("MAXYEAR MINYEAR UTC date datetime time timedelta timezone tzinfo")),
        "decimal": Module(
            note=(
                "`with decimal.localcontext(prec=50):` sets the precision for a block, "
                "`decimal.getcontext().prec = 50` for what the worker does from then on."
            ),
            plain=_words("""
                Clamped Context ConversionSyntax Decimal DecimalException DecimalTuple DivisionByZero
                DivisionImpossible DivisionUndefined FloatOperation Inexact InvalidContext InvalidOperation MAX_EMAX
                MAX_PREC MIN_EMIN MIN_ETINY Overflow ROUND_05UP ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN
                ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP Rounded Subnormal Underflow getcontext localcontext setcontext
            """),
            missing=dict.fromkeys(
                ("BasicContext", "DefaultContext", "ExtendedContext"), "decimal.Context(prec=...) makes one of your own"
            ),
        ),
        "difflib": Module(
            plain=_words("""
                Differ IS_CHARACTER_JUNK IS_LINE_JUNK Match SequenceMatcher context_diff diff_bytes get_close_matches
                ndiff restore unified_diff
            """),
            missing={"HtmlDiff": "difflib.unified_diff gives lines of text"},
        ),
        "enum": Module(
            note=(
                '`Enum("Color", "RED GREEN")` takes names that do not begin with an underscore, and no `module`, '
                "`qualname` or `boundary`."
            ),
            plain=_words("CONFORM EJECT FlagBoundary KEEP STRICT auto member nonmember unique"),
            ours=_taken("Enum", "Flag", "IntEnum", "IntFlag", "StrEnum", of=enums),
            our_names=("Enum", "Flag", "IntEnum", "IntFlag", "StrEnum"),
            missing={
                "EnumMeta": _NO_METACLASS,
                "EnumType": _NO_METACLASS,
                "global_enum": "assign the members you need: RED = Color.RED",
                "ReprEnum": "derive from IntEnum or StrEnum",
            },
        ),
        "fractions": Module(plain=("Fraction",)),
        "functools": Module(
            note=(
                "`wraps`, `update_wrapper` and `total_ordering` are for functions and classes of your own; "
                "`wraps` copies name and docstring. `@singledispatch` functions register with the class written "
                "out: `@show.register(int)`."
            ),
            plain=_words("cache cmp_to_key lru_cache partial reduce"),
            ours=_taken("cached_property", "singledispatch", "total_ordering", "update_wrapper", "wraps", of=functions),
            our_names=("cached_property", "singledispatch", "total_ordering", "update_wrapper", "wraps"),
            missing={
                "partialmethod": "write the method",
                "singledispatchmethod": "@singledispatch on a function, called from the method",
            },
        ),
        "hashlib": Module(
            note="`algorithms_available` and `algorithms_guaranteed` are frozen sets.",
            plain=_words("""
                blake2b blake2s md5 new pbkdf2_hmac scrypt sha1 sha224 sha256 sha384 sha3_224 sha3_256 sha3_384
                sha3_512 sha512 shake_128 shake_256
            """),
            ours=_hashlib,
            our_names=("algorithms_available", "algorithms_guaranteed"),
            missing={"file_digest": "hashlib.sha256(data) digests bytes"},
        ),
        "heapq": Module(plain=_words("heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest")),
        "hmac": Module(
            plain=("compare_digest", "digest", "new"), missing={"HMAC": "hmac.new(key, message, 'sha256') makes one"}
        ),
        "html": Module(plain=("escape", "unescape")),
        "io": Module(
            note="Files in memory; there are no others.",
            plain=_words("BytesIO SEEK_CUR SEEK_END SEEK_SET StringIO UnsupportedOperation"),
            missing=dict.fromkeys(("open", "open_code", "FileIO", "TextIOWrapper"), _NO_FILES),
        ),
        "ipaddress": Module(
            plain=_words("""
                AddressValueError IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network
                NetmaskValueError collapse_addresses get_mixed_type_key ip_address ip_interface ip_network
                summarize_address_range v4_int_to_packed v6_int_to_packed
            """)
        ),
        "itertools": Module(
            plain=_words("""
                accumulate batched chain combinations combinations_with_replacement compress count cycle dropwhile
                filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest
            """),
            since={"batched": (3, 12)},
        ),
        "json": Module(
            plain=_words("JSONDecodeError JSONDecoder JSONEncoder dump dumps load loads"), children=("decoder",)
        ),
        "json.decoder": Module(plain=("JSONDecodeError", "JSONDecoder")),
        "logging": Module(
            note=(
                "Lines go to the function's log with their level and the fields of `extra`; `exception` and "
                "`exc_info` add the traceback. Levels are set with `setLevel` or `basicConfig(level=...)`; without "
                "it, INFO and above is written. There are no handlers and formatters: what `basicConfig` is told of "
                "the form of lines has no effect."
            ),
            hosted=journal.journal,
            hosted_names=journal.NAMES,
            missing={
                **dict.fromkeys(
                    _words("config dictConfig Formatter Handler StreamHandler FileHandler handlers"),
                    "the platform writes the lines; logging.getLogger(name).setLevel(level) chooses which",
                ),
                "LoggerAdapter": "fields go into extra={...}",
                "warn": "logging.warning",
            },
        ),
        "math": Module(
            plain=_words("""
                acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp
                exp2 expm1 fabs factorial floor fma fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan
                isqrt lcm ldexp lgamma log log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin
                sinh sqrt sumprod tan tanh tau trunc ulp
            """),
            since={"sumprod": (3, 12), "fma": (3, 13)},
        ),
        "operator": Module(
            note="`attrgetter` and `methodcaller` read the attributes that source may name.",
            plain=_words("""
                abs add and_ call concat contains countOf eq floordiv ge getitem gt index indexOf inv invert is_
                is_not itemgetter le length_hint lshift lt matmul mod mul ne neg not_ or_ pos pow rshift sub truediv
                truth xor
            """),
            ours=_taken("attrgetter", "methodcaller", of=operators),
            our_names=("attrgetter", "methodcaller"),
            missing={
                "setitem": "write items[key] = value",
                "delitem": "write del items[key]",
                **{
                    f"i{name.rstrip('_')}": f"write the operator: a {sign}= b"
                    for name, sign in {
                        "add": "+",
                        "and_": "&",
                        "concat": "+",
                        "floordiv": "//",
                        "lshift": "<<",
                        "matmul": "@",
                        "mod": "%",
                        "mul": "*",
                        "or_": "|",
                        "pow": "**",
                        "rshift": ">>",
                        "sub": "-",
                        "truediv": "/",
                        "xor": "^",
                    }.items()
                },
            },
        ),
        "random": Module(
            note="The functions have a generator of their own, seeded anew in every worker.",
            ours=_random,
            our_names=("Random", *randomness.METHODS),
            since={"binomialvariate": (3, 12)},
            missing={"SystemRandom": "the module secrets gives numbers that nobody can guess"},
        ),
        "re": Module(
            plain=_words("""
                A ASCII DOTALL I IGNORECASE L LOCALE M MULTILINE Match NOFLAG Pattern PatternError RegexFlag S U
                UNICODE VERBOSE X compile error escape findall finditer fullmatch match search split sub subn
            """),
            since={"PatternError": (3, 13)},
            missing={
                "DEBUG": "leave it out",
                "Scanner": "re.finditer with a pattern of named groups",
                "purge": "leave it out",
            },
        ),
        "secrets": Module(
            plain=_words(
                "DEFAULT_ENTROPY choice compare_digest randbelow randbits token_bytes token_hex token_urlsafe"
            ),
            missing={"SystemRandom": "secrets.choice, secrets.randbelow and secrets.token_bytes are there"},
        ),
        "statistics": Module(
            plain=_words("""
                LinearRegression NormalDist StatisticsError correlation covariance fmean geometric_mean harmonic_mean
                kde kde_random linear_regression mean median median_grouped median_high median_low mode multimode
                pstdev pvariance quantiles stdev variance
            """),
            since={"kde": (3, 13), "kde_random": (3, 13)},
        ),
        "string": Module(
            plain=_words("""
                Template ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable
                punctuation whitespace
            """),
            missing={"Formatter": "an f-string, or str.format"},
        ),
        "struct": Module(plain=_words("Struct calcsize error iter_unpack pack pack_into unpack unpack_from")),
        "textwrap": Module(
            plain=_words("dedent fill indent shorten wrap"),
            missing={"TextWrapper": "textwrap.wrap and textwrap.fill take the same settings"},
        ),
        "time": Module(
            note="`sleep` does not go on beyond the deadline: the invocation ends there, as `timeout`.",
            plain=_words("""
                altzone asctime ctime daylight gmtime localtime mktime monotonic monotonic_ns perf_counter
                perf_counter_ns process_time process_time_ns strftime strptime struct_time thread_time thread_time_ns
                time time_ns timezone tzname
            """),
            hosted=lambda host: {"sleep": timing.sleeper(host)},
            hosted_names=("sleep",),
            missing={"tzset": "datetime.now(ZoneInfo('Europe/Vienna')) gives the time of any place"},
        ),
        "typing": Module(
            note=(
                "For annotations, and for classes made with `NamedTuple`, `TypedDict`, `Protocol` and `Generic`. "
                "Nothing evaluates an annotation; `get_args` gives a name in quotes as a string. `Type[C]` counts "
                "as `Any`."
            ),
            plain=_words("""
                AbstractSet Annotated Any AnyStr BinaryIO Callable ChainMap ClassVar Collection Concatenate Container
                ContextManager Counter DefaultDict Deque Dict Final FrozenSet Generator Generic Hashable IO ItemsView
                Iterable Iterator KeysView List Literal LiteralString Mapping MappingView Match MutableMapping
                MutableSequence MutableSet NamedTuple Never NewType NoReturn NotRequired Optional OrderedDict
                ParamSpec Pattern Protocol ReadOnly Required Reversible Self Sequence Set Sized SupportsAbs
                SupportsBytes SupportsComplex SupportsFloat SupportsIndex SupportsInt SupportsRound TYPE_CHECKING Text
                TextIO Tuple TypeAlias TypeGuard TypeIs TypeVar TypeVarTuple TypedDict Union Unpack ValuesView
                assert_never assert_type cast is_typeddict
            """),
            ours=_taken(
                "Type", "final", "get_args", "get_origin", "overload", "override", "runtime_checkable", of=kinds
            ),
            our_names=("Type", "final", "get_args", "get_origin", "overload", "override", "runtime_checkable"),
            since={"ReadOnly": (3, 13), "TypeIs": (3, 13)},
            missing={
                "ForwardRef": "write the annotation as it is, or as a string",
                "get_type_hints": "annotations are not evaluated; keep what you need to know in a dict",
                "no_type_check": "leave it out",
                "reveal_type": "leave it out",
                "dataclass_transform": "leave it out",
                **dict.fromkeys(
                    _words("AsyncContextManager AsyncGenerator AsyncIterable AsyncIterator Awaitable Coroutine"),
                    _NO_ASYNC,
                ),
            },
        ),
        "unicodedata": Module(
            plain=_words("""
                bidirectional category combining decimal decomposition digit east_asian_width is_normalized lookup
                mirrored name normalize numeric unidata_version
            """)
        ),
        "urllib": Module(children=("parse",)),
        "urllib.parse": Module(
            plain=_words("""
                DefragResult DefragResultBytes ParseResult ParseResultBytes SplitResult SplitResultBytes parse_qs
                parse_qsl quote quote_from_bytes quote_plus unquote unquote_plus unquote_to_bytes urldefrag urlencode
                urljoin urlparse urlsplit urlunparse urlunsplit
            """)
        ),
        "uuid": Module(
            plain=_words("NAMESPACE_DNS NAMESPACE_OID NAMESPACE_URL NAMESPACE_X500 RFC_4122 UUID uuid3 uuid4 uuid5"),
            missing={
                "getnode": "a function does not learn the hardware it runs on",
                "uuid1": "uuid.uuid4(): version 1 has the address of the machine in it",
            },
        ),
        "zlib": Module(
            plain=_words("""
                DEFLATED DEF_BUF_SIZE DEF_MEM_LEVEL MAX_WBITS ZLIB_RUNTIME_VERSION ZLIB_VERSION Z_BEST_COMPRESSION
                Z_BEST_SPEED Z_BLOCK Z_DEFAULT_COMPRESSION Z_DEFAULT_STRATEGY Z_FILTERED Z_FINISH Z_FIXED Z_FULL_FLUSH
                Z_HUFFMAN_ONLY Z_NO_COMPRESSION Z_NO_FLUSH Z_PARTIAL_FLUSH Z_RLE Z_SYNC_FLUSH Z_TREES adler32 compress
                compressobj crc32 decompress decompressobj error
            """)
        ),
        "zoneinfo": Module(
            note="The database is the one of the machine that the worker runs on, read when the platform starts.",
            plain=("ZoneInfoNotFoundError",),
            ours=_taken("ZoneInfo", "available_timezones", of=zones),
            our_names=("ZoneInfo", "available_timezones"),
            missing=dict.fromkeys(("TZPATH", "reset_tzpath"), "the time zone database is read once, by the platform"),
        ),
    }
)
"""Module name to its row, dotted names included; a package whose submodule may be imported has a row as well."""
