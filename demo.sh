#!/usr/bin/env bash
# The whole story on the built-in CT phantom, as a user would type it. `make demo` runs it.
set -euo pipefail
cd "$(dirname "$0")"

export PYTHONPATH="$PWD"
config=configs/demo.toml
root=segfleet-data
run=$root/runs/demo
table=()

stage() { # stage NAME COMMAND...: run a command, show it, and note its seconds
    local name=$1 began=$SECONDS
    shift
    printf '\n$ %s\n' "$*"
    "$@"
    table+=("$(printf '%-34s %5d s' "$name" $((SECONDS - began)))")
}

rm -rf $root/datasets/phantom-* "$run" "$root/inspections/demo" "$root/masks/demo"

stage "prepare the phantom" python -m trainer prepare $config
slices=$(ls -d $root/datasets/phantom-*)
stage "inspect it" python -m trainer inspect $config
stage "train on 2 workers" python -m trainer train $config
stage "evaluate by patient" python -m trainer evaluate $run/bundle
stage "predict" python -m inference predict $run/bundle "$slices/test/images" $root/masks/demo \
    --overlays --masks "$slices/test/masks" --patients '^(PHANTOM_\d+)'

dice=$(python -c "import json; print(f\"{json.load(open('$run/evaluation/test/summary.json'))['dice']['mean']:.3f}\")")
printf '\n%s\n' "The phantom is invented: these figures say that the machinery works, nothing of patients."
printf '%s\n' "${table[@]}"
printf '%-34s %s\n' "mean Dice over test patients" "$dice" \
    "inspection" "$root/inspections/demo/index.html" \
    "report" "$run/evaluation/test/report.html" \
    "masks and overlays" "$root/masks/demo"
