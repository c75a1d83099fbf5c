#!/usr/bin/env bash
# The tutorial's way from an empty folder to a served parser, with a Jackfield that pipx installed:
#   tools/tutorial.sh          needs pipx, and .venv of `make test` for the wheel, pytest and hatchling
# Prints the seconds of each part. Everything is in a temporary folder, also pipx's environments.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=$root/.venv/bin/python
work=$(mktemp -d)
export PIPX_HOME=$work/pipx PIPX_BIN_DIR=$work/bin PATH=$work/bin:$PATH
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

begin=$SECONDS
said() { echo "$((SECONDS - begin)) s: $1"; begin=$SECONDS; }

"$python" -m hatchling build -t wheel -d "$work/wheel" >/dev/null 2>&1
pipx install --quiet "$work"/wheel/jackfield-*.whl --pip-args="--constraint $root/constraints.txt"
said "jackfield is installed"

cd "$work"
jackfield plugins new tool-parser mine >/dev/null
cd jackfield-mine
sed -i 's/MARK = "CALL "/MARK = "TOOL "/' src/jackfield_mine/plugin.py
sed -i 's/CALL {call.name}/TOOL {call.name}/' tests/test_jackfield_mine.py
PYTHONPATH=src "$python" -m pytest -q -p no:cacheprovider >/dev/null 2>&1
"$python" -m hatchling build -t wheel >/dev/null 2>&1
said "the parser is made, changed, tested and built"

pipx inject --quiet jackfield dist/*.whl
jackfield plugins list --kind tool-parser | grep '^tool_parsers *mine ' >/dev/null
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
jackfield serve --host 127.0.0.1 --port "$port" --tool-call-parser mine 2>/dev/null &
server=$!
until curl -sf "http://127.0.0.1:$port/health" >/dev/null; do kill -0 "$server"; sleep 0.1; done
curl -sf "http://127.0.0.1:$port/version" | grep '"name":"mine","distribution":"jackfield-mine"' >/dev/null
said "it is injected and serves"
