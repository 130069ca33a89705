#!/bin/sh
# on_change = ["./page.sh"]: a line per change on standard input, the GeoParquet of changes as last argument. The address
# is a placeholder.
{ cat; echo; echo "All of them: $1"; } | mail -s "Something changed" you@example.org
