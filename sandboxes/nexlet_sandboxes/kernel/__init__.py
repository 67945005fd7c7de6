"""What the operating system is asked to deny a worker: process attributes and resource limits, in their order."""
