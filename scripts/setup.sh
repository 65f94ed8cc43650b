#!/usr/bin/env bash
# Makes the environments that the Makefile's targets need; does nothing where they are already right.
#   scripts/setup.sh dev FOLDER      labelguard with its tests and linters, from requirements-dev.lock
#   scripts/setup.sh studio FOLDER   Label Studio alone (its pins are strict), from requirements-studio.lock
#   scripts/setup.sh browser         Chromium and nginx, which some tests need
set -euo pipefail
cd "$(dirname "$0")/.."

# Newest first. Python 3.14 is left out: the SDK of Label Studio keeps numpy below 2.3, which has no wheels for it.
find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "labelguard needs Python 3.11, 3.12 or 3.13, and none is on the PATH: install one and try again." >&2
  return 1
}

make_venv() {
  local python
  python="$(find_python)"
  if ! "$python" -m venv "$1"; then
    rm -rf "$1"
    echo "$python cannot make virtual environments; on Debian and Ubuntu install the package python3-venv." >&2
    return 1
  fi
}

install_locked() { # FOLDER LOCK
  echo "Installing $2 into $1; the first time takes some minutes."
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$2"
}

dev() {
  local folder="$1" stamp="$1/.installed"
  local wanted
  wanted="$(cat pyproject.toml requirements-dev.lock scripts/setup.sh | cksum) $PWD"
  [[ -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]] && return
  [[ -x "$folder/bin/python" ]] || make_venv "$folder"
  install_locked "$folder" requirements-dev.lock
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
  echo "$wanted" >"$stamp"
}

studio() {
  local folder="$1" stamp="$1/.installed"
  local wanted
  wanted="$(cksum <requirements-studio.lock)"
  [[ -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]] && return
  [[ -x "$folder/bin/python" ]] || make_venv "$folder"
  install_locked "$folder" requirements-studio.lock
  echo "$wanted" >"$stamp"
}

browser() {
  local missing=()
  command -v "${LABELGUARD_CHROMIUM:-chromium}" >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
  command -v nginx >/dev/null || [[ -x /usr/sbin/nginx ]] || missing+=(nginx)
  ((${#missing[@]})) || return 0
  if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]} with apt-get."
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
      return 0
    fi
  fi
  # Not an error: the tests that need them say so themselves.
  echo "Without ${missing[*]} some tests are skipped." >&2
}

case "${1:-}" in
  dev | studio) "$1" "$2" ;;
  browser) browser ;;
  *)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac
