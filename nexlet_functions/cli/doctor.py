"""`doctor`: what this machine's kernel denies a function, proved layer by layer, and what to do about the rest."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import Json, setting_flags
from nexlet_functions.cli.output import Output, plain, styled

if TYPE_CHECKING:
    from rich.table import Table

    from nexlet_functions.settings import Settings
    from nexlet_sandboxes.cgroup import Cgroup
    from nexlet_sandboxes.probe import LayerCheck, Standing

__all__ = ["doctor"]


@setting_flags(Settings=("settings_file", "default_profile", "permit_missing_layers", "cgroup"))
def doctor(*, json: Json = None, flags: Mapping[str, object]) -> None:
    """Prove that the sandbox holds on this machine, and say what to do where it does not.

    For every layer of every profile that the settings permit, a throw-away worker tries something that the layer must
    refuse. Ends with 0 only if every layer of the default profile holds.
    """
    from nexlet_functions.settings import Settings
    from nexlet_sandboxes.cgroup import CgroupUnusable
    from nexlet_sandboxes.outcomes import SandboxError
    from nexlet_sandboxes.probe import standings

    settings = Settings.read(flags)
    output = Output(json=json)
    _machine(output)
    try:
        checks, cgroup = asyncio.run(_check(settings))
    except CgroupUnusable:
        raise
    except SandboxError as error:
        raise CommandFailed(
            Exit.FAILED,
            error.code,
            f"no function can run here: {error}",
            "run the nexlet on Linux, outside of emulators",
        ) from None
    found = standings(checks)
    for check in checks:
        if output.json:
            output.record("layer", **asdict(check))
    if not output.json:
        _show(output, settings, found, checks)
    _groups(output, cgroup)
    for profile, standing in found.items():
        _verdict(output, settings, profile, standing)
    if found[settings.default_profile].missing:
        raise typer.Exit(Exit.FAILED)


async def _check(settings: Settings) -> tuple[list[LayerCheck], Cgroup | None]:
    from nexlet_functions.sandboxing import permitted_profiles
    from nexlet_sandboxes.probe import check_layers
    from nexlet_sandboxes.zygote import Zygote

    zygote = await Zygote.start(cgroup=settings.cgroup)
    try:
        return await check_layers(zygote, permitted_profiles(settings)), zygote.cgroup
    finally:
        await zygote.close()


def _machine(output: Output) -> None:
    from nexlet_sandboxes.kernel import landlock

    user = "root: workers get users of their own" if os.geteuid() == 0 else "an ordinary user, and so are the workers"
    abi = landlock.abi_version()
    output.record(
        "machine",
        [
            f"{platform.system()} {platform.release()} on {platform.machine()}, Python {platform.python_version()}",
            f"Landlock version {abi}" if abi else "no Landlock",
            f"run by {user}",
            "",
        ],
        system=platform.system(),
        release=platform.release(),
        machine=platform.machine(),
        python=platform.python_version(),
        landlock=abi,
        root=os.geteuid() == 0,
    )


def _show(output: Output, settings: Settings, found: Mapping[str, Standing], checks: Sequence[LayerCheck]) -> None:
    """A table of the default profile's layers, and of those that only other profiles have."""
    default = settings.default_profile
    output.console.print(_table(default, [check for check in checks if check.profile == default]))
    shown = {check.layer for check in checks if check.profile == default}
    for profile in found:
        more = [check for check in checks if check.profile == profile and (check.layer not in shown or not check.holds)]
        if profile != default and more:
            output.console.print(_table(profile, more))
    output.console.print()


def _groups(output: Output, cgroup: Cgroup | None) -> None:
    """Which controllers limit workers; nothing holds it against a machine that it has none to give."""
    if cgroup is None:
        says = "control groups: no folder is named (--cgroup); memory is limited as address space alone"
    else:
        says = f"control groups in {cgroup.folder}: {', '.join(cgroup.controllers) or 'they limit nothing'}"
        if cgroup.missing:
            says += f"; not delegated: {', '.join(cgroup.missing)}"
    output.record(
        "cgroup",
        [says, ""],
        folder=str(cgroup.folder) if cgroup is not None else None,
        controllers=list(cgroup.controllers) if cgroup is not None else [],
        not_delegated=list(cgroup.missing) if cgroup is not None else [],
    )


def _table(title: str, checks: Sequence[LayerCheck]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=f"profile {title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=False)
    for column in ("layer", "tried", "what happened"):
        table.add_column(column, overflow="fold")
    table.add_column("")
    for check in checks:
        verdict = styled(("holds", "green")) if check.holds else styled(("MISSING", "bold red"))
        table.add_row(check.layer, plain(check.tried), plain(check.happened), verdict)
        if check.advice:
            table.add_row("", styled((check.advice, "yellow")))
    return table


def _verdict(output: Output, settings: Settings, profile: str, standing: Standing) -> None:
    permitted = [name for name in standing.missing_names if name in settings.permit_missing_layers]
    lacking = [name for name in standing.missing_names if name not in settings.permit_missing_layers]
    name = f"{profile} (default)" if profile == settings.default_profile else profile
    if lacking:
        says = styled((name, "bold"), f"  cannot be used, for want of {', '.join(lacking)}")
    elif permitted:
        says = styled((name, "bold"), f"  is used without {', '.join(permitted)}, as the settings permit")
    else:
        says = styled((name, "bold"), f"  holds: {len(standing.engaged)} layers")
    output.record(
        "profile",
        says,
        profile=profile,
        default=profile == settings.default_profile,
        holds=not standing.missing,
        available=not lacking,
        engaged=list(standing.engaged),
        missing=list(standing.missing_names),
        permitted=permitted,
    )
