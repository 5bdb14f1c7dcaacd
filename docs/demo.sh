#!/usr/bin/env bash
# What `make demo` runs: the whole path on data that comes with the installed packages. Everything it writes is in demo/.
# Each line that begins with $ is the command that follows it; all of them can be typed again by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
launcher=
trap '[[ -z $launcher ]] || kill "$launcher" 2>/dev/null || true' EXIT

bold() { if [[ -t 1 ]]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
chapter() {
    echo
    bold "== $*"
}
announce() { bold "\$ $*"; } # a line of shell, as it could be typed
typed() {
    local word line=
    for word; do
        [[ $word != *' '* ]] || word="\"$word\""
        line+="$word "
    done
    printf '%s' "${line% }"
}
run() {
    announce "$(typed "$@")"
    "$@"
}
quietly() { # FILE COMMAND…: what the command says goes into the file, and is shown if it fails
    local file=$1
    shift
    announce "$(typed "$@") > $file"
    "$@" >"$file" 2>&1 || { tail -n 20 "$file"; exit 1; }
}
state() { sed -nE 's/.*"state": "(.*)".*/\1/p' "$1/status.json" 2>/dev/null || true; }
weights() { sha256sum "$1/checkpoints/step-000000110/"{model,optimizer}.safetensors; }

mkdir -p demo
rm -rf demo/runs demo/diff demo/report.html demo/*.log
cat <<'SEEN'
What you will see, in three minutes; all that is written stays in demo/:
  1. a small CNN trains on 1,437 handwritten digits, and is killed midway, as a scheduler would
  2. the same command goes on where it was
  3. the same training, undisturbed, ends with the same weights: the hashes are compared
  4. two of its checkpoints on the 360 test images: which answers changed, and is that chance?
  5. a small language model trains on Python's own documentation, and writes
  6. one page with all of it
SEEN

chapter "1. Train, and be killed"
# the first only keeps accelerate from complaining: each training sets its own threads; one is quick on a busy machine too
announce "export OMP_NUM_THREADS=1 RELAUNCH_DATA=demo/data"
export OMP_NUM_THREADS=1 RELAUNCH_DATA=demo/data

digits=(accelerate launch --config_file accelerate_configs/cpu.yaml -m trainers.train mnist --data digits
    --epochs 5 --log-interval 25 --keep 9 --threads 1)
announce "${digits[@]} --run demo/runs/digits &"
"${digits[@]}" --run demo/runs/digits &
launcher=$!
until grep -qs '"step": 44,' demo/runs/digits/metrics.jsonl; do
    kill -0 "$launcher" 2>/dev/null || break
    sleep 0.05
done
[[ ! -t 2 ]] || echo >&2 # the training's bar is there
announce "kill -TERM $launcher    # the launcher dies, the training saves and leaves"
kill -TERM "$launcher" 2>/dev/null || true
wait "$launcher" 2>/dev/null || true
launcher=
for _ in {1..600}; do
    [[ $(state demo/runs/digits) == running ]] || break
    sleep 0.1
done
sleep 1 # its last words come after its status
run grep '"reason"' demo/runs/digits/status.json
[[ $(state demo/runs/digits) == preempted ]] || echo "(It was faster than the signal: what follows finds it finished.)"

chapter "2. The same command with --resume auto goes on from there"
run "${digits[@]}" --run demo/runs/digits --resume auto

chapter "3. Once more, undisturbed: the same bits?"
quietly demo/undisturbed.log "${digits[@]}" --run demo/runs/undisturbed
announce "sha256sum demo/runs/*/checkpoints/step-000000110/*.safetensors"
weights demo/runs/digits
weights demo/runs/undisturbed
if [[ $(weights demo/runs/digits | cut -d' ' -f1) == $(weights demo/runs/undisturbed | cut -d' ' -f1) ]]; then
    echo "The interrupted training and the undisturbed one ended with the same weights and optimizer, to the last bit."
else
    echo "relaunch: the interrupted training did NOT end with the weights of the undisturbed one" >&2
    exit 1
fi

chapter "4. Which predictions changed between the first epoch and the best?"
quietly demo/diff.log relaunch diff demo/runs/digits@22 demo/runs/digits@best --out demo/diff
run sed -n "/^on /,/^McNemar/p" demo/diff.log

chapter "5. A language model on the text of Python's own documentation"
quietly demo/pydoc.log accelerate launch --config_file accelerate_configs/cpu.yaml -m trainers.train wikitext2 --data pydoc \
    --epochs 2 --log-interval 50 --threads 1 --run demo/runs/pydoc
run grep "  val  " demo/pydoc.log
run relaunch generate demo/runs/pydoc --words 60 --seed 1 --prompt "The function"

chapter "6. All of it on one page"
run relaunch report demo/runs/digits -o demo/report.html

chapter "Done"
python - <<'PYTHON'
import json
from pathlib import Path

runs = Path("demo/runs")
diff = json.loads(Path("demo/diff/diff.json").read_text())
last = [json.loads(line) for line in (runs / "pydoc/metrics.jsonl").read_text().splitlines()]
ppl = [record["ppl"] for record in last if record["split"] == "val"]
for what, result in [
    ("digits, after the first epoch", f"{diff['a']['top1']:.1f} % of {diff['n']} test images right"),
    ("digits, best checkpoint", f"{diff['b']['top1']:.1f} % right"),
    ("predictions that changed", f"{diff['n'] - diff['agree']}: {diff['wrong_to_right']} to right, {diff['right_to_wrong']} to wrong"),
    ("interrupted = undisturbed", "yes, to the last bit"),
    ("pydoc, perplexity per epoch", ", ".join(f"{value:.0f}" for value in ppl)),
]:
    print(f"{what:30} {result}")
PYTHON
cat <<'PLACES'

the report: open it            demo/report.html
what changed, to filter        demo/diff/diff.html
curves, graph, sample images   .venv/bin/relaunch tensorboard demo/runs/*
checkpoints, logs by rank      demo/runs/digits/{checkpoints,logs}
what to try next               README.md
PLACES
