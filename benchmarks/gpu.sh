#!/usr/bin/env bash
# All measurements that a GPU is needed for, in one command: nobody has run it on one yet, so how long it takes is not
# known. With --small it runs anywhere, to see that it works.
#
#     bash benchmarks/gpu.sh DATA_ROOT OUTPUT [--small]
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1 output=$2 python=${PYTHON:-.venv/bin/python}
step=(--turns 10)
accuracy=(--set epochs=30 --set delta=fgsm --set init=zero --set attack_statistics=batch --set penalty_two_sided=false --goal 0.45
  --examples 2000)
scaling=(--concurrent 1 2 4 8 --trials 8)
search=(--set training.epochs=1 --set rescore.top=0)
if [[ ${3:-} == --small ]]; then
  network=(--model preact_resnet10 --width 4)
  step=(--turns 2 --batch 16 "${network[@]}")
  accuracy=(--set epochs=1 --train-images 500 --examples 100 --goal 0.1 "${network[@]}")
  scaling=(--concurrent 1 2 --trials 2)
  search+=(--set model.name=preact_resnet10 --set model.width=4 --set data.train_examples=500
    --set evaluation.examples=100)
fi
mkdir -p "$output"
"$python" benchmarks/time_to_accuracy.py --data-root "$data" --output "$output" --network "$output/network.pt" "${accuracy[@]}"
"$python" benchmarks/step.py --data-root "$data" --output "$output" --robust "$output/network.pt" "${step[@]}"
"$python" benchmarks/scaling.py --space search_spaces/cure.yaml --output "$output" "${scaling[@]}" \
  -- --data-root "$data" "${search[@]}"
