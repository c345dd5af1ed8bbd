"""Entry point of `python -m cinderlora.cli`."""

import sys

from cinderlora.cli import main

if __name__ == "__main__":
    sys.exit(main())
