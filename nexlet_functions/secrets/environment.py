"""Secrets out of the nexlet's own environment, for namespaces that its operator says it of.

A namespace sees the variables that its rules name, one by one or by a prefix, and no other. Where nothing is said it
sees none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import SecretStr

from nexlet_functions.rules import NamespaceRules

__all__ = ["EnvironmentSecrets"]


class EnvironmentSecrets:
    """Implements `SecretStore` over a process's environment."""

    def __init__(self, rules: Callable[[str], NamespaceRules], environment: Mapping[str, str]) -> None:
        """Of a process's environment.

        Args:
            rules: of a namespace, asked at each use.
        """
        self._rules = rules
        self._environment = environment

    async def get(self, namespace: str, key: str) -> SecretStr | None:
        """See `SecretStore.get`. A key that the rules map goes before the prefix."""
        given = self._rules(namespace).secrets
        variable = given.environment.get(key)
        if variable is None and given.environment_prefix:
            # Nothing is made of a key but what it is: `db-key` and `DB_KEY` are not to be the same variable.
            variable = given.environment_prefix + key
        value = self._environment.get(variable) if variable is not None else None
        return SecretStr(value) if value is not None else None
