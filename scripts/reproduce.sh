#!/usr/bin/env bash
# The published experiments of DM, DC and DSA (FairDD, tables 1 to 3). Interrupted, the same command resumes.
#   bash scripts/reproduce.sh --list                          every name and its commands
#   bash scripts/reproduce.sh CelebA-DM-ipc10 --seed 1        one of them; flags are passed on to its first command
# FOLDER in the list is --save_path, or a folder whose name tells apart all flags that change results.
source "$(dirname "$0")/common.sh"

datasets=(Colored_MNIST_foreground Colored_MNIST_background Colored_FashionMNIST_foreground
  Colored_FashionMNIST_background CIFAR10_S CelebA UTKface BFFHQ)
methods=(DM DC DSA)
ipcs=(10 50 100)
networks="ConvNet AlexNet VGG11 ResNet18"

# commands_of NAME: its commands, one a line.
commands_of() {
  local dataset=${1%%-*} what=${1#*-}
  case $what in
    whole) echo "python -m fairdd.evaluate --data real --dataset $dataset" ;;
    networks)       # of table 3: DM at ipc 50, tested with other networks
      echo "bash scripts/main_DM.sh --dataset $dataset --ipc 50 --save_path FOLDER"
      echo "python -m fairdd.evaluate FOLDER/vanilla --model $networks"
      echo "python -m fairdd.evaluate FOLDER/fairdd --model $networks" ;;
    DM-*) echo "bash scripts/main_DM.sh --dataset $dataset --ipc ${what#*-ipc}" ;;
    *) echo "bash scripts/main_DC.sh --method ${what%-*} --dataset $dataset --ipc ${what#*-ipc}" ;;
  esac
}

# names: of all experiments; tables 1 and 2 (fairness and accuracy) share theirs.
names() {
  local dataset method ipc
  for dataset in "${datasets[@]}"; do
    echo "$dataset-whole"
    for method in "${methods[@]}"; do
      for ipc in "${ipcs[@]}"; do echo "$dataset-$method-ipc$ipc"; done
    done
    echo "$dataset-networks"
  done
}

name=${1:---list}
if [[ $name == --list ]]; then
  for name in $(names); do echo "$name"; commands_of "$name" | sed 's/^/    /'; done
  exit
fi
if ! names | grep -xF -- "$name" > /dev/null; then       # grep -q would leave early: a broken pipe
  echo "error: no experiment is called $name; bash scripts/reproduce.sh --list names them all" >&2
  exit 2
fi
set_up requirements.txt
flags=("${@:2}")
folder=
if [[ $name == *-networks ]]; then
  folder=$(comparison_folder main_DM.py --dataset "${name%%-*}" --ipc 50 "${flags[@]}")
fi
while read -ru 3 -a words; do
  if [[ ${words[0]} == python ]]; then words[0]=$python; fi
  "${words[@]/#FOLDER/$folder}" "${flags[@]}"
  flags=()
done 3< <(commands_of "$name")
