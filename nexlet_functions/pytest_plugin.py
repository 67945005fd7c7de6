"""The pytest plugin: a folder's function in a real worker, as the fixture `function`, and its sample events.

It is there wherever nexlet-functions is installed. The function is that of the nearest folder, from the test's file
upwards, that has a Nexfile:

    def test_sample_events(function, sample_event):
        assert function.invoke(sample_event).differences(sample_event) == []

`sample_event` stands for each of the folder's `events/*.json` in turn. `@pytest.mark.nexfn(...)`, on a test, a class
or a module, takes what `nexlet_functions.testing.load_function` takes, and `folder` for another one than the nearest.
`pytest --nexfn-nats` runs the same tests with each function deployed beside a real NATS server.

Every pytest run on the machine loads this module, so it loads nothing before a test asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nexlet_functions.testing import Function, load_function
    from nexlet_sandboxes.launching import Launched

__all__ = [
    "async_function",
    "function",
    "function_folder",
    "pytest_addoption",
    "pytest_configure",
    "pytest_generate_tests",
]

_MARKER = "nexfn"
_NEXFILE = "Nexfile"
_Loaded = dict[str, "Function"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--nexfn-nats`, for a run in which each function is deployed."""
    parser.getgroup("nexfn", "functions under test (nexlet-functions)").addoption(
        "--nexfn-nats",
        action="store_true",
        help="deploy the functions under test to a nexlet beside a real NATS server, instead of to a worker alone",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(folder=..., environment=..., secrets=..., profile=..., limits=..., settings_file=..., nats=...): "
        "how the fixture `function` loads its function; see nexlet_functions.testing.load_function",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each sample event of the folder, where the test asks for `sample_event`."""
    if "sample_event" not in metafunc.fixturenames or _is_parametrized(metafunc, "sample_event"):
        return
    from nexlet_functions.testing import EventRefused, sample_events

    folder = _folder_of(metafunc.definition)
    try:
        events = sample_events(folder)
    except EventRefused as refused:
        pytest.fail(str(refused), pytrace=False)
    metafunc.parametrize("sample_event", events, ids=str)


@pytest.fixture
def function_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of the function under test."""
    return _folder_of(request.node)


@pytest.fixture
def function(request: pytest.FixtureRequest, _nexfn_loaded: tuple[ExitStack, _Loaded]) -> Function:
    """The function under test, loaded into a real worker under its own limits and profile.

    The worker is kept for the tests of a module that load it in the same way, so globals of the function live on from
    one to the next, as they do on a node; a test that minds has a marker of its own, or `load_function`.
    """
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        pytest.fail("a coroutine cannot use the fixture `function`: it takes `async_function`", pytrace=False)
    folder, options = _folder_of(request.node), _options_of(request.node)
    stack, loaded = _nexfn_loaded
    key = repr((folder, sorted(options.items())))
    if key not in loaded:
        from nexlet_sandboxes.launching import launch_early

        # The worker's side gets ready while ours is imported, for the first of all tests.
        launched = launch_early() if "settings_file" not in options else None
        loaded[key] = stack.enter_context(_reporting(_load(folder, options, launched=launched)))
    return loaded[key]


@pytest.fixture
def async_function(request: pytest.FixtureRequest) -> load_function:
    """The same for a test that is a coroutine: `async with async_function as function`, then `await`."""
    return _load(_folder_of(request.node), _options_of(request.node))


@pytest.fixture(scope="module")
def _nexfn_loaded() -> Iterator[tuple[ExitStack, _Loaded]]:
    """What the tests of a module have loaded so far."""
    with ExitStack() as stack:
        yield stack, {}


def _load(folder: Path, options: dict[str, Any], *, launched: Launched | None = None) -> load_function:
    from nexlet_functions.testing import load_function

    try:
        return load_function(folder, **options, launched=launched)
    except TypeError as error:
        if launched is not None:
            launched.end()
        pytest.fail(f"pytest.mark.{_MARKER}: {str(error).rpartition(') ')[2]}", pytrace=False)


class _reporting:
    """Enters a `load_function`; what is wrong with the function is told without a traceback of ours."""

    def __init__(self, loading: load_function) -> None:
        self._loading = loading

    def __enter__(self) -> Function:
        from nexlet_functions.errors import NexletFunctionsError

        try:
            return self._loading.__enter__()
        except NexletFunctionsError as refused:
            pytest.fail(str(refused), pytrace=False)
        except KeyError as missing:  # a secret that only a test can give
            pytest.fail(f"pytest.mark.{_MARKER}: {missing.args[0]}", pytrace=False)

    def __exit__(self, *raised: object) -> None:
        self._loading.__exit__(*raised)


def _folder_of(node: pytest.Item | Any) -> Path:
    """The folder that the marker names, relative to the test's file, or the nearest one above with a Nexfile."""
    file: Path = node.path
    named = _marked(node).get("folder")
    if named is not None:
        return Path(file.parent, named)
    for folder in file.parents:
        if (folder / _NEXFILE).is_file():
            return folder
    pytest.fail(
        f"no {_NEXFILE} beside {file} or above it: name the function's folder, @pytest.mark.{_MARKER}(folder=...)",
        pytrace=False,
    )


def _options_of(node: pytest.Item | Any) -> dict[str, Any]:
    options = {name: value for name, value in _marked(node).items() if name != "folder"}
    if node.config.getoption("nexfn_nats"):
        options.setdefault("nats", True)
    return options


def _marked(node: pytest.Item | Any) -> dict[str, Any]:
    """What the markers say together; the nearest has the last word on each option."""
    options: dict[str, Any] = {}
    for mark in node.iter_markers(_MARKER):
        options = dict(mark.kwargs) | options
    return options


def _is_parametrized(metafunc: pytest.Metafunc, name: str) -> bool:
    marks = metafunc.definition.iter_markers("parametrize")
    return any(name in str(mark.args[0] if mark.args else mark.kwargs.get("argnames")) for mark in marks)
