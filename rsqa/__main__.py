"""`python -m rsqa`."""

from __future__ import annotations

from rsqa.cli import main

if __name__ == "__main__":
    main()
