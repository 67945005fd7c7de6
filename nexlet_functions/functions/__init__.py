"""The function agent: what is deployed, and the hot path from message to reply."""
