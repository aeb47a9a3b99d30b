#!/usr/bin/env bash
# Says three things to the model and lets scripts read the results: examples/chat.sh FOLDER (needs the `wallaroo` command).
set -euo pipefail
folder="${1:-chat}"
wallaroo info --json
printf 'Draw a red circle.\nTurn it blue.\n画一个绿色的正方形\n' | wallaroo chat --seed 1 --output "$folder"
printf 'a red heart\n三个黄色的圆形\n' > "$folder/prompts.txt"
wallaroo generate --prompts "$folder/prompts.txt" --json --output "$folder/drawn"
