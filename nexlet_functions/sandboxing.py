"""What the machine's sandbox holds, against what the operator permits: whether the nexlet may start, and with what.

At start every layer of every profile is proved (`nexlet_sandboxes.probe`). A layer that does not hold makes its profile
unavailable, unless the operator permits that by name (`permit_missing_layers`); then, and only then, workers are made
without it. The default profile must be available, or the nexlet does not start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import structlog

from nexlet_functions.errors import NexletFunctionsError
from nexlet_functions.settings import Settings
from nexlet_sandboxes.cgroup import Cgroup
from nexlet_sandboxes.probe import Standing, check_layers, standings
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.zygote import Zygote

__all__ = ["LayersMissing", "Sandboxing", "permitted_profiles", "prove"]

_log = structlog.stdlib.get_logger("nexlet_functions")


class LayersMissing(NexletFunctionsError):
    """The default profile cannot be had on this machine.

    Attributes:
        standing: what was found about it.
        layers: those that are missing and not permitted to be.
    """

    code = "layers-missing"

    def __init__(self, standing: Standing, layers: tuple[str, ...]) -> None:
        self.standing = standing
        self.layers = layers
        found = [check for check in standing.missing if check.layer in layers]
        lines = [f"the sandbox profile '{standing.profile}', the default, does not hold on this machine"]
        for check in found:
            lines += [f"  {check.layer}: {check.happened}", f"    {check.advice}"]
        lines.append(
            "  'nexlet-functions doctor' shows every layer; to run without these all the same, name them: "
            f"--permit-missing-layers {','.join(layers)}"
        )
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Sandboxing:
    """The profiles on this machine, as the operator permits them.

    Attributes:
        standings: what was found, by profile.
        permitted: layers that may be missing.
        cgroup: where workers have control groups; None where no folder for these is delegated.
    """

    standings: Mapping[str, Standing]
    permitted: frozenset[str] = frozenset()
    cgroup: Cgroup | None = None

    @classmethod
    def assumed(cls) -> Self:
        """Every layer taken for granted, without a proof: a worker that cannot be locked still says so."""
        return cls({name: Standing(name, profile.layers) for name, profile in PROFILES.items()})

    @property
    def without(self) -> frozenset[str]:
        """Layers that workers are made without: they are missing, and permitted to be."""
        return self.permitted & {name for standing in self.standings.values() for name in standing.missing_names}

    def lacking(self, profile: str) -> tuple[str, ...]:
        """Layers that a profile must have and has not; none where it is available."""
        return tuple(name for name in self.standings[profile].missing_names if name not in self.permitted)

    def facts(self, profile: str) -> dict[str, str]:
        """How a profile's workers are locked, for metadata: layers by name, joined by commas."""
        standing = self.standings[profile]
        facts = {"layers": ",".join(standing.engaged)}
        if self.cgroup is not None and "cgroup" in standing.engaged:
            facts["cgroup_controllers"] = ",".join(self.cgroup.controllers)
        if standing.missing:
            facts["missing_layers"] = ",".join(standing.missing_names)
        return facts

    def require(self, profile: str) -> None:
        """Go on only where a profile is available.

        Raises:
            LayersMissing: it is not.
        """
        lacking = self.lacking(profile)
        if lacking:
            raise LayersMissing(self.standings[profile], lacking)

    def tell(self, settings: Settings) -> None:
        """One line of the start log for each profile that somebody may use, and one about what protects nobody."""
        for profile in permitted_profiles(settings):
            standing = self.standings[profile]
            log = _log.warning if standing.missing else _log.info
            log(
                "sandbox profile",
                profile=profile,
                default=profile == settings.default_profile,
                engaged=list(standing.engaged),
                missing={check.layer: check.happened for check in standing.missing},
                available=not self.lacking(profile),
            )
        if self.cgroup is not None:
            log = _log.warning if self.cgroup.missing else _log.info
            log(
                "control groups of workers",
                folder=str(self.cgroup.folder),
                controllers=list(self.cgroup.controllers),
                not_delegated=list(self.cgroup.missing),
            )
        if "unsafe-dev" in permitted_profiles(settings):
            _log.warning(
                "the profile unsafe-dev is permitted: functions in it are kept from no file, network or process by the "
                "kernel, only by the language layer"
            )


async def prove(zygote: Zygote, settings: Settings) -> Sandboxing:
    """Prove every profile, those nobody may use yet included: settings are read again while the nexlet runs.

    Raises:
        ZygoteError: the zygote ended, or has no process for a trial.
    """
    found = standings(await check_layers(zygote, tuple(PROFILES)))
    return Sandboxing(found, frozenset(settings.permit_missing_layers), zygote.cgroup)


async def prove_soon(zygote: Awaitable[Zygote], settings: Settings) -> Sandboxing:
    """The same of a zygote that is about to be ready.

    Raises:
        Exception: whatever is raised by that.
        ZygoteError: as `prove`.
    """
    return await prove(await zygote, settings)


def permitted_profiles(settings: Settings) -> tuple[str, ...]:
    """The default profile and those that rules allow to some namespace, in the order of the table."""
    rules: Iterable[tuple[str, ...]] = (
        settings.defaults.profiles,
        *(each.profiles for each in settings.namespaces.values()),
    )
    named = {settings.default_profile}.union(*rules)
    return tuple(name for name in PROFILES if name in named)
