#!/usr/bin/env bash
# The tests, and the style they are written in. Every argument is passed to pytest.
source "$(dirname "$0")/common.sh"

set_up requirements.txt tests/requirements.txt
"$python" -m ruff check .
"$python" -m pytest --numprocesses 2 --dist worksteal "$@"
