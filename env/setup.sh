# Sourced by quickstart.sh and test.sh: makes the virtual environment and installs hpcgen with everything it needs.
#   HPCGEN_VENV    where the environment lies (default: .venv in the checkout)
#   HPCGEN_PYTHON  the Python to make it with (default: the first python3 that is 3.11 or newer)
#   HPCGEN_TORCH   what to install as torch (default: torch==2.13.0), for example a path to a site's own wheel
# Usage: source env/setup.sh EXTRA[,EXTRA...]

hpcgen_setup() {
  local extras=$1 root venv python stamp wanted
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  cd "$root" || return 1
  venv=${HPCGEN_VENV:-$root/.venv}
  stamp=$venv/.hpcgen-$(echo "$extras" | tr ',' '-')
  wanted=$(cat pyproject.toml env/setup.sh | cksum | cut -d' ' -f1)-${HPCGEN_TORCH:-torch==2.13.0}-$root

  if [ ! -x "$venv/bin/python" ]; then
    python=$(hpcgen_find_python) || return 1
    echo "setup: making $venv with $("$python" --version)"
    "$python" -m venv "$venv" || {
      echo "setup: $python cannot make virtual environments; install its venv module (Debian: python3-venv)," >&2
      echo "       or set HPCGEN_VENV to an environment that exists" >&2
      return 1
    }
  else
    echo "setup: reusing $venv ($("$venv/bin/python" --version))"
  fi
  export PATH=$venv/bin:$PATH VIRTUAL_ENV=$venv

  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "setup: reusing the installed packages ($extras)"
    return 0
  fi
  # torch first and pinned: left to the resolver, it may bring gigabytes of another build
  if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    echo "setup: installing ${HPCGEN_TORCH:-torch==2.13.0}"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${HPCGEN_TORCH:-torch==2.13.0}" || return 1
  fi
  echo "setup: installing hpcgen [$extras]"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]" || return 1
  echo "$wanted" >"$stamp"
}

hpcgen_find_python() {
  local candidate
  for candidate in ${HPCGEN_PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$candidate"
      return 0
    fi
  done
  echo "setup: no Python 3.11 or newer found; install one, or set HPCGEN_PYTHON to its path" >&2
  return 1
}
