#!/usr/bin/env bash
# Runs the tests in two processes side by side, as those in a browser and in notebooks mostly wait; the second's report comes last.
# Takes the path of pytest.
set -uo pipefail

apart=(tests/browser tests/notebooks)
report=$(mktemp)
trap 'kill "$other" 2> /dev/null; rm -f "$report"' EXIT

"$1" "${apart[@]}" -p no:cacheprovider > "$report" 2>&1 &
other=$!
"$1" "${apart[@]/#/--ignore=}"
first=$?
wait "$other"
second=$?
cat "$report"
[ "$first" -eq 0 ] && [ "$second" -eq 0 ]
