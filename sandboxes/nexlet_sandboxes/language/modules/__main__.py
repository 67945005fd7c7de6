"""`python -m nexlet_sandboxes.language.modules` prints docs/modules.md."""

import sys

from nexlet_sandboxes.language.modules.document import page

if __name__ == "__main__":
    sys.stdout.write(page())
