"""The command line: `nexlet-functions`, `nexfn` for short."""
