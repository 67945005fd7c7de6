"""What runs inside a worker process: the loop, the author's view of an invocation, and output capture."""
