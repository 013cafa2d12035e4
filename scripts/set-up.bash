# Makes and keeps .venv, for the other scripts to source: no command of its own.
#
#   source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/set-up.bash"
#   set_up demo     # what the program needs (requirements.lock)
#   set_up dev      # that, and what tests and checks need (requirements-dev.lock)
#   set_up bench    # that, what is measured against, with its servers, and the fuzzer
#                   # (requirements-bench.lock)
#   exec "$VENV/bin/python" ...
#
# Sets ROOT (the checkout, without symbolic links) and VENV. Needs bash, coreutils, flock, and a
# CPython of 3.11 or newer; uses uv if it is on PATH, else Python's own venv and pip. The newest
# Python on PATH is taken, or the one that EVENTLOG_PYTHON names.
#
# Rules:
# - What is installed is written into .venv/.installed, as the last step. While that agrees with
#   the lock files, pyproject.toml, the Python and the place of the checkout, nothing is done.
# - .venv/.unfinished exists from before the first change to after the last: if it is there, an
#   installation was interrupted, and .venv is made anew.
# - Each set contains the one before it (scripts/lock sees to it) and is never reduced to it.
# - Only the holder of .venv.lock changes .venv.
# - A .venv that was not made here is not touched.
# - All that is said goes to stderr: stdout belongs to the program.

ROOT=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
VENV=$ROOT/.venv
readonly ROOT VENV

# What runs is what is installed in .venv, not what the caller's shell adds to every Python; and
# pip installs there, wherever the user's settings would have it install.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0

# Prints three lines (version, executable, whether it can make a venv), or one line and fails.
# Runs on any Python 2 or 3. Asks for the interpreter behind a venv, as that venv may be our own.
readonly PROBE='
import sys
print("%d.%d.%d" % sys.version_info[:3])
if sys.version_info < (3, 11) or sys.version_info[3] != "final":
    sys.exit(1)
if sys.implementation.name != "cpython":
    sys.exit(1)
from importlib.util import find_spec
print(getattr(sys, "_base_executable", None) or sys.executable)
print("venv" if find_spec("venv") and find_spec("ensurepip") else "no-venv")
'

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "error: $*"
    exit 1
}

# --- which Python -----------------------------------------------------------------------------

# The names under which a Python may be on PATH, those that carry a version first, newest first.
python_names() {
    compgen -c python3. | grep -E '^python3\.[0-9]+$' | sort -u -t . -k 2,2nr || true
    printf '%s\n' python3 python
}

# Sets PYTHON and PYTHON_VERSION, and CAN_MAKE_VENV to `venv` or `no-venv`; false if it won't do.
probe_python() {
    local answer
    answer=$("$1" -I -c "$PROBE" 2>/dev/null) || return 1
    { read -r PYTHON_VERSION && read -r PYTHON && read -r CAN_MAKE_VENV; } <<<"$answer"
}

# The newest that can make a venv (with uv any can; `no-venv` sorts before `venv`), else the
# newest. A Python that only uv knows comes last.
find_python() {
    local name version best='' best_version=''
    if [[ -n ${EVENTLOG_PYTHON:-} ]]; then
        probe_python "$EVENTLOG_PYTHON" || fail "EVENTLOG_PYTHON is $EVENTLOG_PYTHON, which is no CPython of 3.11 or newer"
        return
    fi
    while read -r name; do
        probe_python "$name" || continue
        version=$PYTHON_VERSION
        has_uv || version="$CAN_MAKE_VENV $version"
        if [[ -z $best || $(printf '%s\n' "$best_version" "$version" | sort -V | tail -n 1) != "$best_version" ]]; then
            best=$name best_version=$version
        fi
    done < <(python_names)
    if [[ -z $best ]] && has_uv; then
        best=$(uv python find --no-python-downloads '>=3.11' 2>/dev/null) || best=''
    fi
    if [[ -z $best ]] || ! probe_python "$best"; then
        fail_no_python
    fi
}

fail_no_python() {
    local name found
    found=$(python_names | while read -r name; do
        "$name" -I -c 'import sys; print("%s is %d.%d" % ((sys.argv[1],) + sys.version_info[:2]))' "$name" 2>/dev/null || true
    done)
    fail "Python 3.11 or newer is needed, and none is on PATH${found:+ (${found//$'\n'/, })}." \
        "Install one, or name one: EVENTLOG_PYTHON=/path/to/python3 $0"
}

# The one command that brings Python's venv module, by the package manager that is there.
venv_command() {
    local short=${PYTHON_VERSION%.*} as_root=''
    [[ $EUID -eq 0 ]] || as_root='sudo '
    if has apt-get; then
        echo "${as_root}apt-get update && ${as_root}apt-get install -y python$short-venv"
    elif has dnf; then
        echo "${as_root}dnf install -y python$short-libs python3-pip"
    elif has apk; then
        echo "${as_root}apk add python3 py3-pip"
    elif has pacman; then
        echo "${as_root}pacman -S --needed python python-pip"
    elif has zypper; then
        echo "${as_root}zypper install -y python${short/./}-base python${short/./}-pip"
    fi
}

fail_no_venv() {
    local command
    command=$(venv_command)
    say "error: $PYTHON (Python $PYTHON_VERSION) comes without its venv module. This command installs it:"
    say
    say "    ${command:-install the modules venv and ensurepip of Python $PYTHON_VERSION}"
    say
    fail "then run $0 again."
}

# --- what is installed ------------------------------------------------------------------------

has() {
    command -v "$1" >/dev/null
}

has_uv() {
    has uv
}

# A word that differs where compiled packages would not fit; empty if there is no such Python.
python_tag() {
    "$1" -I -S -c 'import sys; print(sys.implementation.cache_tag)' 2>/dev/null || true
}

# What .venv/.installed has to say: one line for what is pinned and where, one for the project.
wanted() {
    printf '%s %s %s %s\n' "$1" "$(uname -m)" \
        "$(cat "$ROOT"/requirements*.lock | sha256sum | cut -c 1-64)" "$ROOT"
    sha256sum <"$ROOT/pyproject.toml" | cut -c 1-64
}

# The place of set $1 among the sets, each of which contains those before it.
rank() {
    case $1 in demo) echo 1 ;; dev) echo 2 ;; bench) echo 3 ;; *) echo 0 ;; esac
}

# The set that .venv was made for, also if it is out of date; or nothing.
installed_set() {
    sed -n 3p "$VENV/.installed" 2>/dev/null || true
}

# Says which step is missing for set $1: none, project, packages (on top) or all (from scratch).
missing() {
    local tag now
    [[ -f $VENV/.installed && ! -e $VENV/.unfinished ]] || { echo all; return; }
    tag=$(python_tag "$VENV/bin/python")
    if [[ -n ${EVENTLOG_PYTHON:-} && $tag != "$(python_tag "$EVENTLOG_PYTHON")" ]]; then
        tag=''
    fi
    now=$(wanted "$tag")
    if [[ -z $tag || ${now%$'\n'*} != "$(sed -n 1p "$VENV/.installed")" ]]; then
        echo all
    elif (($(rank "$1") > $(rank "$(installed_set)"))); then
        echo packages
    elif [[ ${now#*$'\n'} != "$(sed -n 2p "$VENV/.installed")" ]]; then
        echo project
    else
        echo none
    fi
}

# --- installing -------------------------------------------------------------------------------

check_ours() {
    [[ -e $VENV || -L $VENV ]] || return 0
    [[ -f $VENV/.installed || -f $VENV/.unfinished ]] || rmdir -- "$VENV" 2>/dev/null \
        || fail "$VENV was not made by these scripts: move it away, then run $0 again."
}

make_venv() {
    check_ours
    find_python
    # Checked before the old one goes.
    has_uv || [[ $CAN_MAKE_VENV == venv ]] || fail_no_venv
    [[ ! -d $VENV ]] || : >"$VENV/.unfinished"
    # The mark goes last: what an interrupted removal leaves is still known to be ours.
    [[ ! -d $VENV ]] || find "$VENV/" -mindepth 1 -maxdepth 1 ! -name .unfinished -exec rm -rf -- {} +
    mkdir -p -- "$VENV"
    : >"$VENV/.unfinished"
    if has_uv; then
        say "Making .venv with Python $PYTHON_VERSION (uv) ..."
        uv venv --quiet --allow-existing --python "$PYTHON" "$VENV" >&2
    else
        say "Making .venv with Python $PYTHON_VERSION ..."
        "$PYTHON" -I -m venv "$VENV" >&2 \
            || fail "$PYTHON could not make $VENV; if it speaks of ensurepip, this helps: $(venv_command)"
    fi
}

# pip or uv, inside .venv, with arguments that both understand. Neither compiles what it installs:
# of ten thousand modules a third is ever imported.
pip_install() {
    if has_uv; then
        uv pip install --quiet --python "$VENV/bin/python" --no-deps "$@" >&2
    else
        "$VENV/bin/python" -I -m pip --quiet --disable-pip-version-check --no-input \
            install --progress-bar off --no-compile --no-deps "$@" >&2
    fi
}

install_packages() {
    local lock=requirements-$1.lock
    [[ $1 != demo ]] || lock=requirements.lock
    say "Installing the packages of $lock; this may take a minute ..."
    pip_install --require-hashes -r "$ROOT/$lock"
}

# Editable, so that a change to the source needs no installation; built by what is locked.
install_project() {
    (cd -- "$ROOT" && pip_install --no-build-isolation --editable .)
}

write_installed() {
    local tag
    tag=$(python_tag "$VENV/bin/python")
    [[ -n $tag ]] || fail "$VENV/bin/python does not run"
    wanted "$tag" >"$VENV/.installed"
    printf '%s\n' "$1" >>"$VENV/.installed"
    rm -f -- "$VENV/.unfinished"
}

# Whether packages can be added to this .venv: one that uv made has no pip inside.
can_add() {
    has_uv || "$VENV/bin/python" -I -c 'import pip' 2>/dev/null
}

# Brings .venv up to date for set $1; the caller holds the lock.
install_missing() {
    local set=$1 step started=$SECONDS
    step=$(missing "$set")
    [[ $step != none ]] || return 0
    (($(rank "$(installed_set)") < $(rank "$set"))) || set=$(installed_set)
    if [[ $step == all ]] || ! can_add; then
        step=all
        make_venv
    fi
    : >"$VENV/.unfinished"
    [[ $step == project ]] || install_packages "$set"
    install_project
    write_installed "$set"
    say "Set up in $((SECONDS - started)) s; the next start needs none of this."
}

# Makes .venv ready for set $1 (`demo`, `dev` or `bench`), quietly and at once if it is. The lock is held in
# a subshell: no program that is started afterwards inherits it.
set_up() {
    [[ $(missing "$1") != none ]] || return 0
    (
        if ! flock -n 9; then
            say "Another set-up is at work on $VENV; waiting for it ..."
            flock 9
        fi
        install_missing "$1"
    ) 9>>"$ROOT/.venv.lock"
}
