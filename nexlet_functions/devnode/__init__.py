"""Development equipment: an embedded nats-server and a stand-in for the Nex node. Never part of `up`."""
