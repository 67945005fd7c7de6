"""The figures in the documents: `make performance` measures them, keeps them, and writes the pages that show them.

- `results` keeps what was measured, run by run, in `results.json`; `told` reads it and names what is missing.
- `targets` holds figures against what they are to reach; `reasons.md` says, target by target, why one is missed.
- `sections` tells each kind of figure as a table, `page` puts them into `page.md`, and `readme` into the README.
- `drawn` makes the pictures, `form` says how long each kind is measured, `__main__` is the command.
"""
