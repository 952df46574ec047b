# What the scripts share: a Python that has what the project needs, and the four runs of a comparison.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# set_up FILE...: $python becomes the active Python if it has what the requirement files name, else that of .venv,
# which is made and filled where it is missing.
set_up() {
  for python in "${PYTHON:-python}" python3 .venv/bin/python; do
    if "$python" scripts/has_requirements.py "$@" 2>/dev/null; then return; fi
  done
  echo "setting up .venv with $* (once; a download of several gigabytes)"
  "$(python_for_venv)" -m venv .venv
  python=.venv/bin/python
  for file in "$@"; do "$python" -m pip install --quiet --disable-pip-version-check -r "$file"; done
  "$python" scripts/has_requirements.py "$@"
}

# python_for_venv: the name of a Python that is new enough.
python_for_venv() {
  for candidate in "${PYTHON:-python}" python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$candidate"; return; fi
  done
  echo "error: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python" >&2
  return 2
}

# compare ENTRY FLAG...: random real images, group-balanced real images, vanilla and FairDD side by side, then a table
# and a page. Data and settings are printed once. A call that chooses its own alignment (or asks for help) is one run.
compare() {
  local entry=$1 folder flag runs; shift
  for flag in "$@"; do
    case $flag in
      --FairDD | --align | --align=* | -h | --help) "$python" "$entry" "$@"; return ;;
    esac
  done
  folder=$(comparison_folder "$entry" "$@")
  echo "== 1 of 4: random real images"
  "$python" "$entry" "$@" --save_path "$folder/random" --init real --Iteration 0
  echo "== 2 of 4: group-balanced real images"
  "$python" "$entry" "$@" --save_path "$folder/balanced" --init balanced --Iteration 0 --quiet
  echo "== 3 of 4: vanilla"
  "$python" "$entry" "$@" --save_path "$folder/vanilla" --align vanilla --quiet
  echo "== 4 of 4: FairDD"
  "$python" "$entry" "$@" --save_path "$folder/fairdd" --FairDD --quiet
  runs=("$folder"/{random,balanced,vanilla,fairdd})
  echo
  "$python" -m fairdd.report "${runs[@]}"
  echo
  echo "to look at:"
  "$python" -m fairdd.report "${runs[@]}" --out "$folder/report" --overwrite
}

# comparison_folder ENTRY FLAG...: --save_path, or a folder whose name tells apart all flags that change results.
comparison_folder() {
  "$python" -c "import sys, ${1%.py} as entry
from fairdd.core.errors import report_user_errors
from fairdd.flags import comparison_path
_, args = report_user_errors(entry.parse)(sys.argv[1:])
print(comparison_path(args))" "${@:2}"
}
