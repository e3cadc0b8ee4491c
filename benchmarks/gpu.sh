#!/usr/bin/env bash
# All measurements that a GPU is needed for, in one command that ends within LIMIT seconds (480 unless it is set).
#
#     bash benchmarks/gpu.sh DATA_ROOT OUTPUT [--small] [PART…]
#
# The parts, in this order unless some are named: step (images a second of a training step), accuracy (seconds to 45%
# PGD-50-10, along FGSM), evaluation (of that network), scaling (trials at a time; the whole search extrapolated), classic
# (accuracy with the default direction, every 2nd step), if more than 4 minutes are left. Only by name: search, the whole
# search of search_spaces/cure.yaml, as far as LIMIT lets it. Each part has a limit of its own and a log in OUTPUT, and
# the others run if one fails; the exit code is then 1. With --small it runs anywhere, to see that it works.
#
# Nothing needs to be installed: .venv is used if there is one, else python3 with the packages that docs/performance.md names.
set -uo pipefail
data=$1 output=$(mkdir -p "$2" && cd "$2" && pwd)
shift 2
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
slack=1 failed=()

one_sided=(--set epochs=30 --set penalty_two_sided=false --goal 0.45)
steps=(--turns 10)
scaling=(--concurrent 1 8 4)
search=(--set training.epochs=3 --set data.train_examples=5000 --set evaluation.examples=200 --set rescore.top=0)
network=()
if [[ ${1:-} == --small ]]; then
  shift
  slack=10 # no GPU, and perhaps other work
  network=(--model preact_resnet10 --width 4)
  one_sided=(--set epochs=1 --set penalty_two_sided=false --train-images 500 --examples 50 --goal 0.1)
  steps=(--turns 2 --batch 16)
  scaling=(--concurrent 1 2)
  search+=(--set model.name=preact_resnet10 --set model.width=4 --set data.train_examples=256 --set resources.cpus_per_trial=1
    --set evaluation.examples=50)
fi

end=$((SECONDS + ${LIMIT:-480 * slack}))

within() { # NAME SECONDS COMMAND…: within that time, and what is left of the whole
  local name=$1 limit=$((slack * $2)) left=$((end - SECONDS)) code
  shift 2
  limit=$((limit < left ? limit : left))
  if ((limit < 10)); then
    echo "== $name: no time is left"
    failed+=("$name")
    return
  fi
  echo "== $name, at most $limit s"
  timeout -k 5 "$limit" "$@" 2>&1 | tee "$output/$name.log"
  code=${PIPESTATUS[0]}
  if ((code)); then
    echo "== $name: exit code $code"
    failed+=("$name")
  fi
}

part() {
  local trained=(--data-root "$data" --output "$output" "${network[@]}" "${one_sided[@]}")
  case $1 in
    step) within step 150 "$python" benchmarks/step.py --data-root "$data" --output "$output" "${network[@]}" "${steps[@]}" ;;
    accuracy)
      within accuracy 340 "$python" benchmarks/time_to_accuracy.py "${trained[@]}" --name fgsm --network "$output/network.pt" \
        --set direction=fgsm --set init=zero --set attack_statistics=batch
      ;;
    evaluation)
      within evaluation 60 "$python" benchmarks/step.py --data-root "$data" --output "$output" --turns 0 \
        --robust "$output/network.pt"
      ;;
    scaling)
      within scaling 240 "$python" benchmarks/scaling.py --space search_spaces/cure.yaml --output "$output" "${scaling[@]}" \
        -- --data-root "$data" "${search[@]}"
      ;;
    classic)
      within classic 400 "$python" benchmarks/time_to_accuracy.py "${trained[@]}" --name classic --set penalty_every=2
      ;;
    search)
      local left=$((end - SECONDS))
      within search "$left" "$python" run_search.py --space search_spaces/cure.yaml --data-root "$data" \
        --output "$output/search" --time-budget "$((left > 90 ? left - 60 : left / 2))s" --set rescore.top=0
      ;;
    *)
      echo "$1 is not one of step, accuracy, evaluation, scaling, classic, search" >&2
      exit 2
      ;;
  esac
}

within prepare 120 "$python" -c 'import sys; from tune_cure import data; data.load(data.DataSpec(dataset="cifar10", root=sys.argv[1]))' "$data"
if (($#)); then
  for name in "$@"; do part "$name"; done
else
  for name in step accuracy evaluation scaling; do part "$name"; done
  if ((end - SECONDS > 240)); then part classic; else echo "== classic: not enough time is left"; fi
fi
echo "== $SECONDS s"
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}"
  exit 1
fi
