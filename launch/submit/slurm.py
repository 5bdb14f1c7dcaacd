"""An sbatch script: one launcher per node, saved before the time limit, requeued by itself on code 75 alone.

    slurm.script(job)

What the script does at its end follows what SLURM 22.05 was seen to do: see docs/clusters.md.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from relaunch.data_prep.errors import STORAGE, USAGE, Failure
from relaunch.data_prep.names import command, quoted
from relaunch.launch.platforms import FIRST_PORT, PORTS
from relaunch.launch.submit.describe import Job
from relaunch.launch.submit.surroundings import checked, environment
from relaunch.trainers import records, rundir
from relaunch.trainers.rundir import RunDir

AHEAD = 120  # s before the time limit in which a run of unknown size saves and leaves
CODES = "0|64|65|69|70|73|76|77|78"  # a launcher that ends with another did not get to say why


def folder(job: Job) -> Path:
    """Where a job's script, its log and what is known of it are kept."""
    return rundir.ROOT / "jobs" / job.name


def ahead(run: RunDir, limit: int) -> int:
    """Seconds before the time limit to save at: thrice what the slowest checkpoint took, and a minute.

    The files of a checkpoint are written one after the other, so their times tell the rate; the start of the
    first does not show, and is reckoned from its size. At most a quarter of the limit; SLURM may be a minute
    early.
    """
    took = []
    for checkpoint in records.committed(run):
        try:
            model, optimizer, manifest = (
                (checkpoint / name).stat()
                for name in ("model.safetensors", "optimizer.safetensors", "MANIFEST.json")
            )
        except OSError:  # it has just been dropped for a newer one
            continue
        took.append((manifest.st_mtime - model.st_mtime) * (1 + model.st_size / max(optimizer.st_size, 1)))
    return min(max(AHEAD, 60 + round(3 * max(took))) if took else AHEAD, limit // 4)


def directives(job: Job, names: list[str]) -> list[str]:
    site, limit = job.site, job.given.time
    values = {
        "job-name": job.name,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": job.cpus,
        "gpus-per-node": job.gpus,
        "time": f"{limit // 3600}:{limit // 60 % 60:02}:{limit % 60:02}",
        "signal": f"USR1@{ahead(RunDir(job.run), limit)}",
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "chdir": Path.cwd(),
        "output": log(job),
        "open-mode": "append",
        "array": job.tasks and f"0-{len(job.tasks) - 1}",
        "export": ",".join(names),
    }
    lines = [f"--{name}={written(f'--{name}', str(value))}" for name, value in values.items() if value]
    return [f"#SBATCH {line}" for line in [*lines, "--requeue", *(checked_line(d) for d in site.directives)]]


def log(job: Job) -> str:
    """The log's path, as sbatch's pattern: a backslash anywhere in it would keep the job's number out."""
    place = str(Path.cwd() / folder(job))
    if "\\" in place:
        what = f"SLURM cannot number the logs in {place}, which holds a backslash"
        raise Failure(USAGE, what, "submit from another folder, or choose another --name")
    return place.replace("%", "%%") + ("/%A_%a.out" if job.tasks else "/%j.out")


def written(name: str, value: str) -> str:
    """A value as sbatch reads it: outside of quotes a # begins a comment, and everywhere a \\ escapes."""
    if re.fullmatch(r"[\w./:,@%+|-]+", checked(name, value), re.ASCII):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def checked_line(directive: str) -> str:
    if not directive.startswith("-") or not directive.isprintable():
        raise Failure(
            USAGE, f"site directive {directive!r} is not one option of sbatch", "write it like --mem=64G"
        )
    return directive


def script(job: Job) -> str:
    """The whole script. User text is quoted where a shell reads it; the site's lines are shell by intent."""
    values, names = environment(job.given.env)
    cases = [f"RUN={quoted(run)} FLAGS=({command(flags)})" for run, flags in job.runs()]
    words = f"{container(job)} {command(job.command())}".strip()
    parts = [
        f"#!/bin/bash{' -l' if job.site.modules else ''}",
        *directives(job, [*values, *names]),
        "# Written by `relaunch submit slurm`. Its log goes into a folder that must be there: "
        f"mkdir -p {quoted(str(Path.cwd() / folder(job)))}",
        BEFORE,
        f"cd {quoted(str(Path.cwd()))} || exit {STORAGE}",
        *(
            f"export {word.partition('=')[0]}={quoted(word.partition('=')[2])}"
            for word in job.given.env
            if "=" in word
        ),
        *(f"module load {quoted(module)}" for module in job.site.modules),
        *job.site.lines,
        AFTER,
        *(task_of_array(cases) if job.tasks else [*cases, "JOB=$SLURM_JOB_ID"]),
        "RESUME=auto"
        + (f'; [ -e "$RUN/config.json" ] || RESUME={quoted(job.weights)}' if job.weights else ""),
        f'COMMAND=({words} "${{FLAGS[@]}}" --run "$RUN" --resume "$RESUME")',
    ]
    if job.nodes > 1:
        parts += [
            'HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            'COMMAND+=(--main-process-ip "$HEAD" --main-process-port '
            f"$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS})))",
        ]
    rank = ' --machine-rank \\"\\$SLURM_NODEID\\"' if job.nodes > 1 else ""
    fixed = TEMPLATE
    for name, value in (
        ("RANK", rank),
        ("NODES", job.nodes),
        ("LIMIT", job.given.requeues),
        ("CODES", CODES),
    ):
        fixed = fixed.replace(f"@{name}@", str(value))
    text = "\n".join(parts) + fixed
    if job.site.lines or job.site.container:
        read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        if read.returncode:  # else it would fail when its turn has come
            what = f"lines or container of {job.given.site} are not shell: {read.stderr.splitlines()[0]}"
            raise Failure(USAGE, what, "correct them in that file")
    return text


def task_of_array(cases: list[str]) -> list[str]:
    """Only in an array's script: where another one inherits these variables, they are not its own."""
    return [
        "case ${SLURM_ARRAY_TASK_ID:-none} in",
        *(f"  {i}) {case} ;;" for i, case in enumerate(cases)),
        '  *) echo "relaunch: 64 this is no task of the sweep: ${SLURM_ARRAY_TASK_ID:-none}"; exit 64 ;;',
        "esac",
        "JOB=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID  # its SLURM_JOB_ID may name the whole array",
    ]


def container(job: Job) -> str:
    """What the site puts before the command, in shell, with the job's image in it. Failure 64."""
    text, image = job.site.container.strip(), job.given.image
    if image and "{image}" not in text:
        fix = "give `container: apptainer exec --nv {image}`, or how it is done here, in the file of --site"
        raise Failure(USAGE, f"--image {image} would not be used: the site names no container for it", fix)
    if "{image}" in text and not image:
        raise Failure(USAGE, f"the container of {job.given.site} needs an image", "add --image IMAGE")
    return text.replace("{image}", quoted(image))


# What goes wrong before the training is started would leave an empty log.
BEFORE = """
trap 'c=$?; [ "${COMMAND+known}" ] ||
  echo "relaunch job $SLURM_JOB_ID: ended with code $c before the training was started"' EXIT
trap 'echo "relaunch job $SLURM_JOB_ID: code $? of: $BASH_COMMAND"' ERR"""
AFTER = "trap - ERR\nset +e +o pipefail -u  # whatever the lines above asked for"

# Fixed text: nothing of the user's is put into it.
TEMPLATE = r"""
say() { echo "relaunch job $JOB: $*"; }
outcome() { cat "$RUN/status.json" 2>/dev/null; }
noted() { sed -n 's/^ *"code": \([0-9][0-9]*\).*/\1/p'; }
record() { scontrol -o show job "$JOB" 2>&1; }  # what the variables say may be inherited from another job
field() { sed -n "s/.* $1=\([A-Z_0-9]*\).*/\1/p" <<<" $job" | head -n 1; }

# srun hears from each node when its task ends. Where the link between two nodes is cut it waits for that
# until the time limit, although the controller reaches both. What has ended by the run's own note, or by
# the controller's list of steps, and is still there a minute later is not waited for.
watch() {
  trap '' TERM
  local ended now once= seen= steps
  while sleep 60; kill -0 $step 2>/dev/null; do
    ended=
    now=$(outcome)
    [ "$now" = "$before" ] || case $(noted <<<"$now") in 75|@CODES@) ended=1 ;; esac
    steps=$(scontrol -o show step "$JOB")  # empty: the controller does not answer
    if grep -q 'StepId=[^ ]*\.[0-9]' <<<"$steps"; then seen=1; else ended=${ended:-${steps:+$seen}}; fi
    [ -z "$ended" -o -z "$once" ] || kill -KILL $step
    once=$ended
  done
}

trap : TERM  # whoever stops the job tells the launchers too: stay, and see how they end
trap '' USR1
job=$(record)
say "start $(($(field Restarts) + 1)) of $RUN on $SLURM_JOB_NODELIST"
before=$(outcome)

# One launcher per node, which deals with the signals itself as soon as it runs. The rank is each node's
# own. srun ends with the highest code of all: one that failed must outrank those that were then stopped, so
# 100 is added to its code. Once one has left, the others have a minute to do so: one that still notes what
# it saved is not killed.
srun --export=ALL --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=60 \
  bash -c "trap '' USR1; trap : TERM; \"\$@\"@RANK@; c=\$?
    [ \$c -lt 156 ] || c=155  # 256 would be 0
    [ \$c = 0 ] || [ \$c = 75 ] || c=\$((c + 100)); exit \$c" \
  relaunch "${COMMAND[@]}" &
step=$!
[ @NODES@ = 1 ] || { watch >/dev/null 2>&1 & disown; }
while wait $step 2>/dev/null; code=$?; kill -0 $step 2>/dev/null; do :; done
wait $step 2>/dev/null; late=$?  # if it ended while a trap was served, that was not its code
[ $late = 127 ] || code=$late
[ $code -le 100 ] || [ $code -ge 128 -a $code -lt 164 ] || code=$((code - 100))

# What the run itself noted counts for more than what came through srun, which may have been signalled too.
after=$(outcome)
if [ "$after" != "$before" ]; then
  found=$(noted <<<"$after")
  code=${found:-$code}
fi
why=saved
case $code in
  75) ;;
  @CODES@) say "ended with code $code"; exit $code ;;
  *) # not one of ours: if a node is gone, the work is whole up to the last checkpoint
    timeout -k 5 60 srun --ntasks-per-node=1 true 2>/dev/null && { say "ended with code $code"; exit $code; }
    why="a node of $SLURM_JOB_NODELIST no longer answers" ;;
esac

# A controller that restarts or fails over says nothing for minutes; one that answers and refuses is asked
# three times. What TERM is for has been done: it must not end scontrol.
trap '' TERM
leave() { say "$why; $*"; exit $code; }
left=60 said= again="submit it again with the same --run to go on"
while [ $left -gt 0 ]; do
  if job=$(record); then
    state=$(field JobState) count=$(field Restarts)
    [ "$state" = RUNNING ] ||
      leave "not requeued by itself: JobState=$state (cancelled, or taken back by the scheduler)"
    [ "${count:-0}" -lt @LIMIT@ ] || leave "not requeued: it came back @LIMIT@ times already; $again"
    said=$(scontrol requeue "$JOB" 2>&1) && leave requeued
    left=$((left - 20))
  else
    said=$job left=$((left - 1))
    case $said in *"nvalid job id"*) break ;; esac
  fi
  sleep 10
done
leave "not requeued (${said##*error: }); $again"
"""
