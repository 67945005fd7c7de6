"""The Python twin of Nex's Go SDK runner: the whole wire contract of a nexlet, for any kind of agent."""
