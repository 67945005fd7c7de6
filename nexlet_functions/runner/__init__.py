"""The Python twin of Nex's Go SDK runner: the whole wire contract of a nexlet, for any kind of agent.

Write a class with the methods of `Agent`, hand a factory of it to a `Runner`, and run that. `Services` is what the
agent is given.
"""

from nexlet_functions.runner.agent import Agent, AgentError, Refused, WorkloadNotFound
from nexlet_functions.runner.registration import LocalRegistration, RegistrationFailed, local_registration
from nexlet_functions.runner.runner import Phase, Runner
from nexlet_functions.runner.secrets import FolderSecrets, SecretStore
from nexlet_functions.runner.services import Registered, Services, TriggerSpec
from nexlet_functions.runner.settings import RunnerSettings

__all__ = [
    "Agent",
    "AgentError",
    "FolderSecrets",
    "LocalRegistration",
    "Phase",
    "Refused",
    "Registered",
    "RegistrationFailed",
    "Runner",
    "RunnerSettings",
    "SecretStore",
    "Services",
    "TriggerSpec",
    "WorkloadNotFound",
    "local_registration",
]
