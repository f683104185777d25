#!/usr/bin/env bash
# Every check of the project, on one machine without a GPU:     bash launch/test.sh
# One part of the tests, pytest alone with its arguments:       bash launch/test.sh tests/core -q
# Makes .venv first where it is absent or stale. Exit code 0 when everything holds.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi

failed=()
check() { # check COMMAND...: says what it runs, goes on after a failure
  printf '\n== %s\n' "$*"
  "$@" || failed+=("$*")
}

check ruff check .
check ruff format --check .
check lint-imports --no-logo
check pyright
# a file of tests a process, as many at once as there are cores: most of the time goes to compiling; the longest file, the
# chain, stands early in the order of names and would come last in the order of xdist
check python -m pytest --timeout=900 --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

[ ${#failed[@]} -eq 0 ] || {
  printf '\nfailed:\n' >&2
  printf '  %s\n' "${failed[@]}" >&2
  exit 1
}
