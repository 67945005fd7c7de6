"""Several stores of secrets as one: the first that has a secret gives it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr

from nexlet_functions.runner.secrets import SecretStore

__all__ = ["SeveralSecrets"]


class SeveralSecrets:
    """Implements `SecretStore`. One that has a secret and cannot give it is not passed over for the next."""

    def __init__(self, stores: Sequence[SecretStore]) -> None:
        self._stores = tuple(stores)

    async def get(self, namespace: str, key: str) -> SecretStr | None:
        """See `SecretStore.get`."""
        for store in self._stores:
            value = await store.get(namespace, key)
            if value is not None:
                return value
        return None
