"""The command line over nats-py's public interface alone, as it is where that has other insides than the ones we know.

`python -m benchmarks.public up ...`
"""

from __future__ import annotations

from nats.aio.client import Client

from nexlet_functions.cli import main
from nexlet_functions.natsio import fast


def _unknown(client: Client) -> str:
    return "it is measured without"


if __name__ == "__main__":
    fast.why_not = _unknown
    main()
