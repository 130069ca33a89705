#!/usr/bin/env bash
# Ask a mosaic the questions of questions.txt and read the answers:   ask_mosaic.sh MOSAIC [OPTION of rsqa ask]...
# Run it again, from cron or by hand, and it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The output folder is all that rsqa prints to stdout.
out=$(rsqa ask "$@" --question-file "$here/questions.txt")

rsqa show "$out" --question water --value yes --min-confidence 0.8
python "$here/read_answers.py" "$out"
