#!/usr/bin/env bash
# All checks of the project, without a GPU:       bash launch/test.sh
# Only pytest, with its arguments:                bash launch/test.sh tests/core -q
# Creates .venv first if it is missing or stale. Exit code 0 if everything passes.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi

failed=()
check() { # check COMMAND...: print and run it, continue after a failure
  printf '\n== %s\n' "$*"
  "$@" || failed+=("$*")
}

check ruff check .
check ruff format --check .
check lint-imports --no-logo
check pyright
if command -v mkdocs >/dev/null; then check bash launch/docs.sh; fi
# one test file per process, as many processes as cores, because most of the time is compilation; in the order of names,
# because the longest file, the chain, is early there and would be last in the order of xdist
check python -m pytest --timeout=900 --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

[ ${#failed[@]} -eq 0 ] || {
  printf '\nfailed:\n' >&2
  printf '  %s\n' "${failed[@]}" >&2
  exit 1
}
