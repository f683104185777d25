#!/usr/bin/env bash
# Simulate, train, evaluate and report on one CPU:     bash launch/quickstart.sh [--workdir=runs/quickstart]
# Creates .venv first if it is missing or stale. Other arguments are passed to python -m launch.quickstart.
set -euo pipefail
caller=$PWD workdir=runs/quickstart rest=()
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" && exit ;;
    --workdir=/*) workdir=${argument#*=} ;;
    --workdir=?*) workdir=$caller/${argument#*=} ;; # relative to the folder of the caller
    --workdir | --workdir=) echo "error: --workdir needs a folder, as in --workdir=runs/quickstart" >&2 && exit 2 ;;
    *) rest+=("$argument") ;;
  esac
done

. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

workdir=${workdir#"$ROOT/"}
echo "Running python -m launch.quickstart --workdir=$workdir"
exec python -m launch.quickstart "--workdir=$workdir" ${rest[@]+"${rest[@]}"}
