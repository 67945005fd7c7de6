"""Runs untrusted Python in locked processes of its own. Knows nothing of NATS."""
