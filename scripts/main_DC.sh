#!/usr/bin/env bash
# Gradient matching, vanilla and with FairDD, beside two controls. Every argument is passed on:
#   bash scripts/main_DC.sh                               the embedded digits, minutes on two CPU cores
#   bash scripts/main_DC.sh --dataset UTKface --ipc 10    the paper's setting, data in ./data
#   bash scripts/main_DC.sh --method DSA --FairDD         one run alone, with siamese augmentation
source "$(dirname "$0")/common.sh"

settings=(          # edit per experiment; what is not named has the paper's value (main_DC.py --help)
  --ipc 10          # paper: 10, 50, 100
  --num_exp 1       # paper: 1 synthetic set, tested with 10 networks
)

set_up requirements.txt
compare main_DC.py "${settings[@]}" "$@"
