#!/usr/bin/env bash
# The whole chain on one CPU, simulate, train, evaluate, report:     bash launch/quickstart.sh [--workdir=runs/quickstart]
# Makes .venv first where it is absent or stale. Other arguments go to python -m launch.quickstart as they are.
set -euo pipefail
caller=$PWD workdir=runs/quickstart rest=()
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" && exit ;;
    --workdir=/*) workdir=${argument#*=} ;;
    --workdir=?*) workdir=$caller/${argument#*=} ;; # a relative folder is meant from where the user stands
    --workdir | --workdir=) echo "error: --workdir needs a folder, as in --workdir=runs/quickstart" >&2 && exit 2 ;;
    *) rest+=("$argument") ;;
  esac
done

. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

workdir=${workdir#"$ROOT/"}
echo "Running python -m launch.quickstart --workdir=$workdir"
exec python -m launch.quickstart "--workdir=$workdir" ${rest[@]+"${rest[@]}"}
