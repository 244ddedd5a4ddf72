#!/usr/bin/env bash
# Every step on the built-in CT phantom, with the commands of a user. `make demo` runs it.
set -euo pipefail
cd "$(dirname "$0")"

export PYTHONPATH="$PWD"
config=configs/demo.toml
root=segfleet-data
run=$root/runs/demo
sweep=$root/sweeps/demo
timings=()

print_command() {
    printf '\n$ %s\n' "$1"
}

stage() { # stage NAME COMMAND...: print a command, run it, and record its seconds
    local name=$1 start=$SECONDS
    shift
    # The functions below print the command of a user themselves.
    [ "$(type -t "$1")" = function ] || print_command "$(printf '%q ' "$@")"
    "$@"
    timings+=("$(printf '%-34s %5d s' "$name" $((SECONDS - start)))")
}

json_value() { # json_value FILE EXPRESSION: a value of a JSON file
    python -c "import json, sys; record = json.load(open(sys.argv[1])); print($2)" "$1"
}

deploy() { # start the service in the background; it ends with this script
    print_command "segfleet deploy $config serve.port=$port &"
    segfleet deploy $config serve.port="$port" &
    service=$!
    trap 'kill $service 2>/dev/null; wait $service' EXIT
    until python - "$address/healthz" <<'PYTHON'
import sys, urllib.error, urllib.request

try:
    urllib.request.urlopen(sys.argv[1], timeout=2).close()
except (urllib.error.URLError, OSError):
    sys.exit(1)
PYTHON
    do
        if ! kill -0 "$service" 2>/dev/null; then # it has printed the reason
            printf '%s\n' "All steps before this one are in $root; \`make serve\` repeats this one only."
            exit 1
        fi
        sleep 1
    done
}

segment() { # segment IMAGE GROUND_TRUTH MASK: POST a slice, save the mask, print its Dice
    print_command "curl $address/v1/segment -H 'Content-Type: image/png' --data-binary @$1 -o $3"
    python - "$address/v1/segment" "$@" <<'PYTHON'
import sys, urllib.request
from pathlib import Path

import cv2

address, image, ground_truth, mask = sys.argv[1:]
headers = {"Content-Type": "image/png", "Accept": "image/png"}
request = urllib.request.Request(address, Path(image).read_bytes(), headers)
with urllib.request.urlopen(request, timeout=60) as response:
    model = response.headers["Segfleet-Model"]
    Path(mask).write_bytes(response.read())
prediction, expected = (cv2.imread(name, cv2.IMREAD_GRAYSCALE) > 127 for name in (mask, ground_truth))
dice = 2 * (prediction & expected).sum() / (prediction.sum() + expected.sum())
print(f"{Path(image).name} segmented by {model}: Dice {dice:.3f} with its ground truth")
PYTHON
}

rm -rf $root/datasets/phantom-* "$run" "$root/inspections/demo" "$root/masks/demo" \
    "$root/registry/demo" "$sweep" $root/runs/demo-[0-9]*

stage "prepare the phantom" segfleet prepare $config
slices=$(ls -d $root/datasets/phantom-*)
stage "inspect it" segfleet inspect $config
stage "train on 2 workers" segfleet train $config
stage "evaluate by patient" segfleet evaluate $run/bundle
stage "predict" segfleet predict $run/bundle "$slices/test/images" $root/masks/demo \
    --overlays --ground-truth "$slices/test/masks" --patient-id-regex '^(PHANTOM_\d+)'
dice=$(json_value $run/evaluation/test/summary.json 'round(record["dice"]["mean"], 3)')

stage "sweep 4 trials" segfleet sweep $config
version=$(json_value $sweep/sweep.json 'record["version"].split("@")[1]')
stage "promote the best trial" segfleet models promote demo "$version" production

port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
address=http://127.0.0.1:$port
name=$(ls "$slices/test/images" | sed -n 6p)
stage "deploy it" deploy
stage "segment a slice over HTTP" segment "$slices/test/images/$name" "$slices/test/masks/$name" \
    $root/masks/demo-served.png
print_command "kill $service # Ctrl-C does the same in the foreground"
kill $service
wait $service || true
trap - EXIT

printf '\n%s\n' "The phantom is synthetic: these figures show that segfleet works, not how well it segments real CT."
printf '%s\n' "${timings[@]}"
printf '%-34s %s\n' "test Dice of the training" "$dice" \
    "inspection" "$root/inspections/demo/index.html" \
    "report" "$run/evaluation/test/report.html" \
    "masks and overlays" "$root/masks/demo" \
    "leaderboard and plots" "$sweep" \
    "mask of the served slice" "$root/masks/demo-served.png"
