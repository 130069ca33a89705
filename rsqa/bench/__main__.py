"""`python -m rsqa.bench name=value …`: `rsqa bench` where its command line is not installed, as on a bare GPU image."""

from __future__ import annotations

import json
import sys

from rsqa.bench.command import bench
from rsqa.bench.request import request_from_words
from rsqa.errors import RsqaError


def main() -> int:
    """-> exit code."""
    try:
        result = bench(
            request_from_words(sys.argv[1:]),
            say=lambda line: print(line, file=sys.stderr, flush=True),
            show=lambda lines: print("\n".join(lines), flush=True),
        )
    except RsqaError as error:
        print(f"rsqa: error: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
