"""The nexlet: runner, function agent, triggers, command line."""
