#!/usr/bin/env bash
# Experiments of scripts/reproduce.sh on a Slurm cluster, one array task with one GPU each.
#   bash scripts/reproduce.sh --list                              every name
#   sbatch --array=0-2 scripts/slurm_array.sh CelebA-DM-ipc10 CelebA-DM-ipc50 UTKface-DM-ipc10 -- --seed 1
#   sbatch --array=0-9 scripts/slurm_array.sh CelebA-DM-ipc10     one name: task k runs it with --seed k
# What follows -- goes to every experiment. Each has a folder of its own, named by its flags; a task that was stopped or
# requeued resumes from it, and a finished one ends at once. So the same sbatch command goes on with a stopped array.
#SBATCH --job-name=fairdd
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

names=()
while [[ $# -gt 0 && $1 != -- ]]; do names+=("$1"); shift; done
flags=("${@:2}")
task=${SLURM_ARRAY_TASK_ID:?start this script with sbatch --array}
if [[ ${#names[@]} -eq 0 ]]; then
  echo "error: name one experiment or more; bash scripts/reproduce.sh --list names them all" >&2
  exit 2
fi
if [[ ${#names[@]} -eq 1 ]]; then
  name=${names[0]}
  flags+=(--seed "$task")
elif [[ $task -lt ${#names[@]} ]]; then
  name=${names[$task]}
else
  echo "error: array task $task, but only ${#names[@]} experiments are named; --array=0-$((${#names[@]} - 1)) fits" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
exec bash scripts/reproduce.sh "$name" "${flags[@]}"
