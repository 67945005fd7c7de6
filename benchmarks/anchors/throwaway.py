"""An environment with packages from the registry, for as long as a block lasts: nothing of it stays."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CannotInstall", "Throwaway", "throwaway"]


class CannotInstall(Exception):
    """The packages cannot be had; what pip said of it."""


@dataclass(frozen=True, slots=True)
class Throwaway:
    """What was made.

    Attributes:
        bin: the folder of its programs, `python` among them.
    """

    bin: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.bin / "python")

    def versions(self, names: Sequence[str]) -> dict[str, str]:
        """Of these packages."""
        source = "import json, sys; from importlib.metadata import version; "
        source += "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
        done = subprocess.run([self.python, "-c", source, *names], capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found


@contextlib.contextmanager
def throwaway(packages: Sequence[str]) -> Iterator[Throwaway]:
    """An environment with these, installed by an ordinary pip from whatever registry it is set up for.

    Raises:
        CannotInstall: the registry is not to be reached, or has no such package.
    """
    with tempfile.TemporaryDirectory(prefix="nexlet-anchors-") as folder:
        made = Throwaway(Path(folder) / "bin")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        # Few tries: where there is no network, that is to be said soon.
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
        done = subprocess.run([made.python, *pip, *packages], capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
            raise CannotInstall("\n".join(said) or done.stderr.strip() or f"pip ended with {done.returncode}")
        yield made
