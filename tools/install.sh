#!/bin/sh
# Makes .venv ready for a chore; a repeat that has nothing to do takes a moment.
#
#   run     the server and every plugin, then the llama.cpp engine; the server works without the engine too
#   lint    the same without the engine, with the tools of development
#   test    the tools, the engine, and the programs that tests run for real (a browser, Redis, node): fails where one
#           is missing
#   engine  try to build the engine once more
#   images  diffusers and torch, for pictures; the server works without them
#
# PYTHON names the interpreter to use (3.11 or newer); by default the first suitable one of the PATH.
set -eu
cd "$(dirname "$0")/.."

PLUGIN=./plugins/lollms-binding-llamacpp
IMAGES=./plugins/lollms-binding-diffusers
LOG=.venv/llama.cpp-build.log

say() { printf '%s\n' "$*"; }

# What the packages depend on, as one line: it changes when they have to be installed again.
fingerprint() { cat requirements*.txt kernel/pyproject.toml plugins/*/pyproject.toml | cksum; }

recent_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
makes_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
version_of() { "$1" -c 'import sys; print(*sys.version_info[:2], sep=".")'; }

# A virtual environment does not survive being moved: its programs name their interpreter by its full path.
moved() { [ -e .venv/.made-in ] && [ "$(cat .venv/.made-in)" != "$(pwd)" ]; }

find_python() {
    without_venv=
    for python in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 python; do
        if recent_enough "$python"; then
            if makes_venvs "$python"; then
                say "$python"
                return
            fi
            without_venv=$python
        fi
        if [ -n "${PYTHON:-}" ]; then break; fi
    done
    if [ -n "$without_venv" ]; then
        say "$without_venv cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv"
    elif [ -n "${PYTHON:-}" ]; then
        say "PYTHON=$PYTHON is not a Python 3.11 or newer. Leave PYTHON out to take the first suitable one."
    else
        say "No Python 3.11 or newer was found. Install one (https://www.python.org/downloads/,"
        say "sudo apt install python3 python3-venv, brew install python), or name it: make PYTHON=/path/to/python3.11"
    fi >&2
    return 1
}

ensure_venv() {
    if [ -x .venv/bin/pip ] && recent_enough .venv/bin/python && ! moved; then
        if [ -z "${PYTHON:-}" ]; then return; fi
        if [ "$(version_of "$PYTHON" 2>/dev/null)" = "$(version_of .venv/bin/python)" ]; then return; fi
    fi
    python=$(find_python)
    say "Making .venv with $python ($(version_of "$python"))."
    "$python" -m venv --clear .venv
    pwd >.venv/.made-in
}

ensure_packages() { # ensure_packages REQUIREMENTS_FILE
    stamp=.venv/.installed-$1
    if [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; then return; fi
    say "Installing $1 into .venv: less than a minute, most of it downloads."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1"
    fingerprint >"$stamp"
    if [ "$1" = requirements-dev.txt ]; then fingerprint >.venv/.installed-requirements.txt; fi
}

has_engine() { .venv/bin/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("llama_cpp"))'; }
compiler() { command -v "${CXX:-c++}" || command -v g++ || command -v clang++ || true; }
engine_fingerprint() { { cat "$PLUGIN/pyproject.toml" && compiler; } | cksum; }

explain_missing_engine() {
    if [ -z "$(compiler)" ]; then
        say "llama.cpp is not installed: there is no C++ compiler to build it with."
        say "  cure: install one (sudo apt install g++, sudo dnf install gcc-c++, xcode-select --install), then make install"
    else
        say "llama.cpp is not installed: building it failed. The full output is in $LOG."
        say "  cure: mend what its last lines say, then make engine"
    fi
}

build_engine() {
    if has_engine; then
        set --
    elif [ -n "$(compiler)" ]; then
        set --
        say "Building llama.cpp: about 4 minutes on 2 cores the first time, seconds after that."
    else
        set -- -qqq --only-binary llama-cpp-python # without a compiler only a ready-made wheel can help
    fi
    rm -f "$LOG" .venv/.engine-failed
    { .venv/bin/python -m pip install --disable-pip-version-check --log "$LOG" "$@" -e "$PLUGIN[engine]" 2>&1 ||
        : >.venv/.engine-failed; } | grep -v '^Requirement already satisfied' || true
    if [ -e .venv/.engine-failed ]; then explain_missing_engine; fi
    engine_fingerprint >.venv/.engine
}

ensure_engine() {
    if [ "$(cat .venv/.engine 2>/dev/null)" != "$(engine_fingerprint)" ]; then
        build_engine
    elif ! has_engine; then
        explain_missing_engine
    fi
}

install_images() {
    say "Installing torch and diffusers into .venv: minutes the first time, up to some GB of downloads."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -e "$IMAGES[engine]"
    say "Pictures are ready: lollms generate --type tti -o out.png 'a red circle on white'"
}

# Programs that tests run, with the Debian package of each. They are installed where that can be done without asking.
ensure_programs() {
    missing=
    for program in chromium redis-server node npm; do
        if ! command -v "$program" >/dev/null; then missing="$missing $program"; fi
    done
    if [ -z "$missing" ]; then return; fi
    packages=$(printf '%s' "$missing" | sed 's/ node/ nodejs/; s/^ //')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing what the tests run: $packages."
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
    else
        say "The tests run these programs, which are not installed:$missing"
        say "  cure on Debian and Ubuntu: sudo apt install $packages"
        exit 1
    fi >&2
}

# The npm packages that tests run under node and in the browser.
NODE_CLIENTS=tests/plugins/lollms_transport_socketio/clients

ensure_node_clients() {
    stamp=$NODE_CLIENTS/node_modules/.installed
    wanted=$(cksum <"$NODE_CLIENTS/package-lock.json")
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
    say "Installing the npm clients that the tests run: a few seconds."
    npm ci --prefix "$NODE_CLIENTS" --no-audit --no-fund --ignore-scripts --loglevel=error >/dev/null
    say "$wanted" >"$stamp"
}

case ${1:-} in
run)
    ensure_venv
    ensure_packages requirements.txt
    ensure_engine
    if ! has_engine; then say "The server works without it; lollms doctor lists what is missing."; fi
    ;;
lint)
    ensure_venv
    ensure_packages requirements-dev.txt
    ;;
test)
    ensure_programs
    ensure_venv
    ensure_packages requirements-dev.txt
    ensure_node_clients
    ensure_engine
    if ! has_engine; then
        say "The tests run the real model and cannot do without it."
        exit 1
    fi >&2
    ;;
engine)
    ensure_venv
    ensure_packages requirements.txt
    build_engine
    has_engine
    ;;
images)
    ensure_venv
    ensure_packages requirements.txt
    install_images
    ;;
*)
    say "usage: sh tools/install.sh run|lint|test|engine|images" >&2
    exit 2
    ;;
esac
