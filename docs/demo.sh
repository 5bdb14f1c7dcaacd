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
announce() { # a line of shell, as it could be typed
    echo
    bold "\$ $*"
}
run() {
    local word line=
    for word; do
        [[ $word != *' '* ]] || word="\"$word\""
        line+="$word "
    done
    announce "${line% }"
    "$@"
}
state() { sed -nE 's/.*"state": "(.*)".*/\1/p' "$1/status.json" 2>/dev/null || true; }
weights() { sha256sum "$1/checkpoints/step-000000110/"{model,optimizer}.safetensors; }

mkdir -p demo
rm -rf demo/runs demo/diff demo/report.html
chapter "1. Train on 1,437 handwritten digits, and kill it midway"
echo "All that follows stays in demo/. OMP_NUM_THREADS only keeps accelerate from complaining: each training sets its own threads,"
echo "and --threads 1 is there so that it is quick on a busy machine too."
announce "export RELAUNCH_DATA=demo/data OMP_NUM_THREADS=1"
export RELAUNCH_DATA=demo/data OMP_NUM_THREADS=1

digits=(accelerate launch --config_file accelerate_configs/cpu.yaml -m trainers.train mnist --data digits
    --epochs 5 --log-interval 25 --keep 9 --threads 1)
announce "${digits[@]} --run demo/runs/digits &"
"${digits[@]}" --run demo/runs/digits &
launcher=$!
until grep -qs '"step": 50,' demo/runs/digits/metrics.jsonl; do
    kill -0 "$launcher" 2>/dev/null || break
    sleep 0.05
done
announce "kill -TERM $launcher    # as a scheduler ends a job: the launcher dies, the training saves and leaves"
kill -TERM "$launcher" 2>/dev/null || true
wait "$launcher" 2>/dev/null || true
launcher=
for _ in {1..600}; do
    [[ $(state demo/runs/digits) == running ]] || break
    sleep 0.1
done
run cat demo/runs/digits/status.json
[[ $(state demo/runs/digits) == preempted ]] || echo "(It was faster than the signal: what follows finds it finished.)"

chapter "2. The same command with --resume auto goes on from there"
run "${digits[@]}" --run demo/runs/digits --resume auto

chapter "3. Once more, undisturbed: the same bits?"
run "${digits[@]}" --run demo/runs/undisturbed
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
run relaunch evaluate demo/runs/digits@22
run relaunch evaluate demo/runs/digits@best
run relaunch diff demo/runs/digits@22 demo/runs/digits@best --out demo/diff

chapter "5. A language model on the text of Python's own documentation"
run accelerate launch --config_file accelerate_configs/cpu.yaml -m trainers.train wikitext2 --data pydoc \
    --epochs 2 --log-interval 50 --threads 1 --run demo/runs/pydoc
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
the images that changed        demo/diff/changed.png
curves, graph, sample images   .venv/bin/relaunch tensorboard demo/runs/*
checkpoints and predictions    demo/runs/digits/{checkpoints,predictions}
what to try next               README.md
PLACES
