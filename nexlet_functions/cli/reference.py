"""docs/cli.md, made from the commands themselves: `python -m nexlet_functions.cli.reference > docs/cli.md`."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

from nexlet_functions.cli.app import COMMANDS, load_command
from nexlet_functions.cli.exits import Exit

__all__ = ["reference"]

_HEAD = """\
# Commands

`nexlet-functions`, `nexfn` for short. This page is made from the commands: `python -m nexlet_functions.cli.reference`.

Results go to standard output, as text on a terminal and as JSON lines in a pipe (`--json` and `--text` choose). Each
line is an object whose `type` says what it is. Errors and logs go to standard error.

Every option has an environment twin, and an option goes before its twin. What is secret has no option: it comes from
the file that an option names, or from `NEXFN_PASSWORD` and `NEXFN_TOKEN`.

`nexfn --install-completion` sets up TAB for the shell that it is typed in (bash, zsh, fish, PowerShell), from the next
one on; `source <(nexfn --show-completion)` does it for the running bash. It offers commands, options, and the values
that can be told from the folder one is in: function folders, sample events, templates, modules.

## Exit codes

| code | |
|---|---|
"""


def reference() -> str:
    """The page, Markdown."""
    lines = [_HEAD + "\n".join(f"| {code.value} | {code.meaning} |" for code in Exit), ""]
    for name in COMMANDS:
        command: Any = load_command(name)
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
        usage = " ".join(["nexfn", name, "[OPTIONS]", *(_metavar(each) for each in arguments)])
        lines += [f"## {name}", "", f"    {usage}", "", *_paragraphs(command.help), ""]
        if any(each.help for each in arguments):
            lines += ["| argument | |", "|---|---|"]
            lines += [f"| `{_bare(_metavar(each))}` | {_cell(each.help)} |" for each in arguments]
            lines.append("")
        lines += ["| option | environment | |", "|---|---|---|"]
        lines += [f"| {_names(each)} | {_variables(each)} | {_cell(each.help)}{_default(each)} |" for each in options]
        lines.append("")
    return "\n".join(lines)


def _paragraphs(text: str) -> list[str]:
    wrapped = (textwrap.fill(each, 120, break_on_hyphens=False) for each in text.split("\n\n"))
    return "\n\n".join(wrapped).splitlines()


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _bare(metavar: str) -> str:
    return metavar.strip("{}").replace("|", "\\|")


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _names(option: Any) -> str:
    metavar = "" if option.is_flag else f" {option.metavar or 'TEXT'}"
    names = sorted(option.opts, key=lambda name: (name.startswith("--"), len(name)))
    shown = ", ".join(f"`{name}{metavar if name == names[-1] else ''}`" for name in names)
    return shown + "".join(f", `{name}`" for name in option.secondary_opts)


def _variables(option: Any) -> str:
    given = option.envvar or []
    names = [given] if isinstance(given, str) else list(given)
    return ", ".join(f"`{name}`" for name in names) or "`NEXFN_HEADER`" * (option.name == "header")


def _default(option: Any) -> str:
    shown = option.show_default if isinstance(option.show_default, str) else None
    if shown is None and option.show_default and not option.is_flag and option.default not in (None, ""):
        shown = str(option.default)
    return f" Default: `{shown}`." if shown else ""


if __name__ == "__main__":
    sys.stdout.write(reference())
