"""What others make of the same task, beside ours and the bare responder in the same run: see `__main__`."""
