#!/usr/bin/env bash
# Builds the documentation site into build/site; a warning is an error:   bash launch/docs.sh
# Shows it at http://localhost:8000 while you write:                      bash launch/docs.sh serve
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

command -v mkdocs >/dev/null || fail "mkdocs is not installed" "pip install -c constraints.txt -e '.[docs]'"
export NO_MKDOCS_2_WARNING=1 # a notice of the theme, without effect on the site
if [ "${1:-build}" = build ]; then
  mkdocs build --quiet --strict --clean
  echo "wrote build/site; open build/site/index.html"
else
  exec mkdocs "$@"
fi
