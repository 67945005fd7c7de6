"""Connections to NATS: by credentials, supervised, shared."""
