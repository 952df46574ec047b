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

# compare ENTRY FLAG...: random real images, group-balanced real images, vanilla and FairDD side by side, then a table.
# A call that chooses its own alignment (or asks for help) is run as it stands.
compare() {
  local entry=$1 folder flag; shift
  for flag in "$@"; do
    case $flag in
      --FairDD | --align | --align=* | -h | --help) "$python" "$entry" "$@"; return ;;
    esac
  done
  folder=$(save_path "$@")
  folder=${folder:-results/$(basename "$entry" .py)$(printf '_%s' "${@#--}" | tr -c 'A-Za-z0-9._-' '_')}
  "$python" "$entry" "$@" --save_path "$folder/random" --init real --Iteration 0
  "$python" "$entry" "$@" --save_path "$folder/balanced" --init balanced --Iteration 0
  "$python" "$entry" "$@" --save_path "$folder/vanilla" --align vanilla
  "$python" "$entry" "$@" --save_path "$folder/fairdd" --FairDD
  echo
  "$python" -m fairdd.report "$folder"/{random,balanced,vanilla,fairdd}
  echo
  echo "to look at:"
  "$python" -m fairdd.report "$folder"/{random,balanced,vanilla,fairdd} --out "$folder/report" --overwrite
}

# save_path FLAG...: the value of --save_path, if it is given.
save_path() {
  while (($#)); do
    case $1 in
      --save_path) echo "${2:-}" ;;
      --save_path=*) echo "${1#*=}" ;;
    esac
    shift
  done | tail -n 1
}
