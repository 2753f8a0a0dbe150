"""`python -m lollms_kernel` is the `lollms` command."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main(prog_name="lollms")
