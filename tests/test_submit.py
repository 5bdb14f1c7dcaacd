"""What `relaunch submit` writes, and what it refuses to. Nothing here starts a scheduler; the shell only reads the script."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import kubernetes_api
from data_prep.errors import Failure
from launch.__main__ import run as relaunch
from launch.submit import describe, kubernetes, queue, slurm
from trainers.rundir import RunDir

DIGITS = ["mnist", "--data", "digits", "--config", "cpu"]
HOSTILE = "x'; touch hacked; echo $(id) `id` \"$HOME\" \\"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAUNCH_DATA", str(tmp_path / "data"))
    for name in [n for n in os.environ if n.startswith(("SLURM_", "PET_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def written(capsys):
    """written("slurm", "mnist", …): what the command prints."""
    def write(*words) -> str:
        capsys.readouterr()
        assert relaunch(["submit", *map(str, words)]) == 0
        return capsys.readouterr().out
    return write


def refused(*words) -> str:
    with pytest.raises(Failure) as caught:
        relaunch(["submit", *map(str, words)])
    assert caught.value.code == 64, caught.value.line()
    return caught.value.line()


def directives(script: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE)
    return {name: value.strip('"') for name, value in found}


def rehearse(script: str, **tools: str) -> tuple[int, str]:
    """Run the script with stand-ins for SLURM's commands; returns its code and everything that was said."""
    folder = Path("tools")
    folder.mkdir(exist_ok=True)
    tools = {"scontrol": "case $* in show*hostnames*) echo n1;; *requeue*) echo REQUEUED $2;; *) echo JobState=${STATE:-RUNNING};; esac",
             "module": "echo module $*", **tools}
    for name, body in tools.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder.absolute()}:{os.environ['PATH']}", "SLURM_JOB_ID": "20007", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NODEID": "1",
                   "SLURM_CPUS_PER_TASK": "2"}
    done = subprocess.run(["bash", "-c", script], env=environment | {k: v for k, v in os.environ.items() if k in ("COUNT", "STATE")},
                          capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout + done.stderr


# the stand-in for srun runs what follows its own options, as a node would
SRUN = 'while [[ $1 == --* ]]; do shift; done; [ "$1" != true ] || exit ${TRUE:-0}; "$@"'


# slurm -----------------------------------------------------------------------------------------------------------------


def test_a_job_on_two_nodes(written):
    script = written("slurm", "cifar10", "--config", "8gpu", "--nodes", 2, "--time", "4:00:00", "--batch-size", 256, "--data", digits_as("cifar10"),
                     "--partition", "gpu", "--account", "lab", "--qos", "high", "--constraint", "a100|h100", "--module", "cuda/12.4", "--run", "first")
    found = directives(script)
    assert {k: found[k] for k in ("nodes", "ntasks-per-node", "gpus-per-node", "time", "partition", "account", "qos", "constraint", "open-mode")} == {
        "nodes": "2", "ntasks-per-node": "1", "gpus-per-node": "8", "time": "4:00:00", "partition": "gpu", "account": "lab", "qos": "high",
        "constraint": "a100|h100", "open-mode": "append"}
    assert found["output"] == str(Path.cwd() / "runs/jobs/first/%j.out") and "requeue" in found
    assert found["signal"] == f"USR1@{slurm.AHEAD}"
    assert "--config 8gpu" in script and "--num-processes 16 --num-machines 2" in script
    assert r"\"\$SLURM_NODEID\"" in script and "module load cuda/12.4" in script and script.startswith("#!/bin/bash -l\n")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def digits_as(name: str) -> str:
    """A packed set of images that needs no download; returns its name."""
    from stand_in import small_set

    Path("data").mkdir(exist_ok=True)
    small_set(Path("data"), name)
    return name


def test_each_node_gets_its_own_rank_and_the_same_meeting_place(written):
    script = written("slurm", *DIGITS, "--nodes", 2, "--time", 5)
    code, said = rehearse(script.replace(f"({shlex.quote(describe.sys.executable)} -m launch", "(echo LAUNCH"), srun=SRUN)
    line = next(line for line in said.splitlines() if line.startswith("LAUNCH"))
    assert "--main-process-ip n1 --main-process-port 20007 --machine-rank 1" in line and code == 0


ENDS = [  # (launcher's code, what the run noted, the job's state, restarts so far) -> (requeued, code)
    (75, None, "RUNNING", 0, True, 75), (1, 75, "RUNNING", 0, True, 75), (0, 0, "RUNNING", 0, False, 0), (143, 0, "RUNNING", 0, False, 0),
    (75, None, "CANCELLED", 0, False, 75), (75, None, "COMPLETING", 0, False, 75), (75, None, "RUNNING", 2, False, 75),
    (78, 78, "RUNNING", 0, False, 78), (65, None, "RUNNING", 0, False, 65), (1, None, "RUNNING", 0, False, 1), (169, None, "RUNNING", 0, False, 69),
    (101, 75, "RUNNING", 0, True, 75), (137, None, "RUNNING", 0, False, 137)]


@pytest.mark.parametrize("launcher, noted, state, count, requeued, code", ENDS)
def test_requeued_on_75_alone_and_never_after_a_cancel(written, monkeypatch, launcher, noted, state, count, requeued, code):
    script = written("slurm", *DIGITS, "--time", 5, "--run", "r", "--requeues", 2)
    Path("runs/r").mkdir(parents=True)
    Path("runs/r/status.json").write_text('{\n  "state": "preempted",\n  "code": 75\n}\n')  # of the start before: not this one's
    note = f"""printf '{{\\n  "code": {noted},\\n  "step": 9\\n}}\\n' >runs/r/status.json; """ if noted is not None else ""
    monkeypatch.setenv("STATE", state)
    got, said = rehearse(f"export SLURM_RESTART_COUNT={count}\n" + script, srun=f'[[ $* != *true ]] || exit 0; {note}exit {launcher}')
    assert got == code and ("REQUEUED 20007" in said) == requeued, said
    assert requeued or "not requeued" in said or f"ended with code {code}" in said


def test_a_lost_node_is_requeued(written):
    script = written("slurm", *DIGITS, "--time", 5, "--nodes", 2)
    code, said = rehearse(script, srun='[[ $* != *true ]] || exit 1; exit 137')
    assert code == 137 and "no longer answers; requeued" in said and "REQUEUED" in said


def test_a_launcher_that_failed_outranks_those_that_were_stopped_for_it(written):
    """srun ends with the highest code: 75 is above 69, and would bring back a job that can never begin."""
    script = written("slurm", *DIGITS, "--time", 5, "--nodes", 2)
    both = '[[ $* != *true ]] || exit 0; while [[ $1 == --* ]]; do shift; done; worst=0; for n in 0 1; do SLURM_NODEID=$n "$@"; c=$?; [ $c -le $worst ] || worst=$c; done; exit $worst'
    for codes, seen in (("75 75", 75), ("75 69", 69), ("0 0", 0), ("75 1", 1), ("0 76", 76), ("75 137", 137)):
        launcher = f"#!/bin/bash\nset -- {codes}\nshift $SLURM_NODEID\nexit $1\n"
        Path("launcher").write_text(launcher)
        Path("launcher").chmod(0o755)
        code, said = rehearse(script.replace(f"({shlex.quote(describe.sys.executable)} -m launch", "(./launcher"), srun=both)
        assert code == seen and ("REQUEUED" in said) == (codes == "75 75"), said


def test_a_task_of_an_array_requeues_itself_only(written):
    script = written("slurm", *DIGITS, "--time", 5, "--run", "s", "--sweep", "seed=1,2", "--sweep", "lr=0.1,0.01")
    assert directives(script)["array"] == "0-3" and directives(script)["output"].endswith("%A_%a.out")
    code, said = rehearse("export SLURM_ARRAY_JOB_ID=20000 SLURM_ARRAY_TASK_ID=3\n" + script,
                          srun='[[ $* != *true ]] || exit 0; echo "$@" | grep -o -- "--seed.*"; exit 75')
    assert "REQUEUED 20000_3" in said and "--seed 2 --lr 0.01 --run runs/s-seed2-lr0.01 --resume auto" in said


def test_nothing_of_the_users_is_read_by_a_shell(written):
    Path("site.yaml").write_text(yaml.safe_dump({"modules": [HOSTILE], "container": "env"}))
    script = written("slurm", *DIGITS, "--time", 5, "--run", f"{os.getcwd()}/a {HOSTILE}".replace('"', "").replace("\\", ""), "--site", "site.yaml",
                     "--env", f"NOTE={HOSTILE}", "--data-root", HOSTILE, "--name", "n")
    code, said = rehearse(script, srun='[[ $* != *true ]] || exit 0; printf "<%s>\\n" "$@"; echo "NOTE=$NOTE"')
    assert code == 0 and not Path("hacked").exists() and f"<{HOSTILE}>" in said and f"NOTE={HOSTILE}" in said and f"module load {HOSTILE}" in said


@pytest.mark.parametrize("words", [["--name", "a\nb"], ["--partition", "a\n#SBATCH --x"], ["--account", 'a" --x'], ["--run", "a\nb"]])
def test_a_line_break_in_a_directive(words):
    assert "line break" in refused("slurm", *DIGITS, "--time", "5", *words)


def test_the_environment_is_an_allow_list_without_secrets(written, monkeypatch):
    for name, value in {"HF_HOME": "/hf", "NCCL_DEBUG": "INFO", "NCCL_SECRET_KEY": "s3cret", "AWS_KEY": "s3cret", "HF_TOKEN": "s3cret", "EDITOR": "vi"}.items():
        monkeypatch.setenv(name, value)
    for script in (written("slurm", *DIGITS, "--time", 5, "--env", "HF_TOKEN"), written("sheet", *DIGITS, "--user", "a", "--env", "HF_TOKEN"),
                   written("kubernetes", *DIGITS, "--image", "i", "--volume", "c:/runs", "--run", "/runs/x", "--env", "HF_TOKEN")):
        assert "s3cret" not in script and "HF_TOKEN" in script and "AWS_KEY" not in script and "EDITOR" not in script
    assert {"HF_HOME", "NCCL_DEBUG", "HF_TOKEN", "PATH"} <= set(directives(written("slurm", *DIGITS, "--time", 5, "--env", "HF_TOKEN"))["export"].split(","))
    assert "write a secret down" in refused("slurm", *DIGITS, "--time", "5", "--env", "HF_TOKEN=s3cret")
    assert "not set here" in refused("slurm", *DIGITS, "--time", "5", "--env", "NEVER_SET")
    assert "not the name" in refused("slurm", *DIGITS, "--time", "5", "--env", "A-B=1")


def test_the_signal_comes_ahead_by_what_checkpoints_took(tmp_path):
    run = RunDir(tmp_path / "r")
    assert slurm.ahead(run, 3600) == slurm.AHEAD and slurm.ahead(run, 120) == 30
    for step, span in ((1, 10), (2, 40)):  # s from the model's file to the manifest; the model is as large as the optimizer
        folder = run.checkpoint(step)
        folder.mkdir(parents=True)
        for name, at in (("model.safetensors", 0), ("optimizer.safetensors", span), ("MANIFEST.json", span)):
            (folder / name).write_bytes(b"x" * 1000)
            os.utime(folder / name, (1e9 + at, 1e9 + at))
    assert slurm.ahead(run, 36000) == 60 + 3 * 80
    assert slurm.ahead(run, 600) == 150


@pytest.mark.parametrize("text, seconds", [("90", 5400), ("5:30", 330), ("4:00:00", 14400), ("1-12", 129600), ("2-00:30:00", 174600)])
def test_times(text, seconds):
    assert describe.seconds(text) == seconds


def test_the_site_file(written):
    Path("site.yaml").write_text("partition: gpu\naccount: lab\nmodules: [cuda]\nlines: ['ulimit -l unlimited']\ndirectives: [--mem=64G]\n"
                                 "container: apptainer exec --nv {image}\npython: python3.11\n")
    script = written("slurm", *DIGITS, "--time", 5, "--site", "site.yaml", "--partition", "debug", "--image", "a b.sif")
    found = directives(script)
    assert (found["partition"], found["account"], found["mem"]) == ("debug", "lab", "64G")  # a flag is over the file
    assert "\nulimit -l unlimited\n" in script and "COMMAND=(apptainer exec --nv 'a b.sif' python3.11 -m launch train" in script
    Path("site.yaml").write_text("partion: gpu\n")
    assert "did you mean partition?" in refused("slurm", *DIGITS, "--time", "5", "--site", "site.yaml")
    Path("site.yaml").write_text("modules: cuda\n")
    assert "modules is not a list" in refused("slurm", *DIGITS, "--time", "5", "--site", "site.yaml")


def test_other_weights_are_only_begun_with(written):
    script = written("slurm", *DIGITS, "--time", 5, "--run", "tuned", "--resume", "runs/first@best")
    say = '[[ $* != *true ]] || exit 0; echo "$@"'
    assert "--run runs/tuned --resume runs/first@best" in rehearse(script, srun=say)[1]
    Path("runs/tuned").mkdir(parents=True)
    Path("runs/tuned/config.json").touch()
    assert "--run runs/tuned --resume auto" in rehearse(script, srun=say)[1]


WRONG = [
    (["slurm", *DIGITS], "how long"), (["slurm", "mnits", "--time", "5"], "did you mean mnist"), (["slurm", *DIGITS, "--time", "soon"], "not a time"),
    (["slurm", *DIGITS, "--time", "5", "--epocs", "3"], "did you mean --epochs"), (["slurm", *DIGITS, "--time", "5", "--nodes", "0"], "from 1 up"),
    (["slurm", *DIGITS, "--time", "5", "--gpus-per-node", "8"], "trains on the CPU"), (["slurm", *DIGITS, "--time", "5", "--machine-rank", "1"], "itself"),
    (["slurm", *DIGITS, "--time", "5", "-b", "100", "--nodes", "3"], "does not divide"), (["slurm", *DIGITS, "--time", "5", "--sweep", "sed=1,2"], "did you mean --seed"),
    (["slurm", *DIGITS, "--time", "5", "--sweep", "seed=1,,2"], "FLAG=A,B,C"), (["slurm", *DIGITS, "--time", "5", "--nodes", "2", "--emulate"], "one machine"),
    (["slrum"], "did you mean slurm"), (["kubernetes", *DIGITS], "needs an image"), (["kubernetes", *DIGITS, "--image", "i"], "gone with its pod"),
    (["kubernetes", *DIGITS, "--image", "i", "--volume", "runs"], "CLAIM:PATH"), (["sheet", *DIGITS, "--user", "a", "--nodes", "2"], "do not know of each other"),
    (["sheet", *DIGITS, "--user", "../b"], "not a name"), (["sheet", *DIGITS], "--user")]


@pytest.mark.parametrize("words, expected", WRONG, ids=[expected for _, expected in WRONG])
def test_mistakes_are_one_line(words, expected):
    assert expected in refused(*words)


# a scheduler that is not there ------------------------------------------------------------------------------------------


@pytest.fixture
def scheduler(monkeypatch):
    """scheduler(sbatch="echo 7"): SLURM's commands, in shell."""
    def install(**tools):
        Path("bin").mkdir(exist_ok=True)
        for name, body in tools.items():
            Path("bin", name).write_text(f"#!/bin/bash\necho {name} \"$@\" >>calls\n{body}\n")
            Path("bin", name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:/usr/bin:/bin")
    return install


def test_submitting_notes_the_job_and_chains_it(written, scheduler):
    scheduler(sbatch='n=$(cat n 2>/dev/null || echo 40); echo $((n + 1)) >n; echo "$((n + 1));cluster"', scancel="", squeue='echo "41|RUNNING|None, n1"')
    said = written("slurm", *DIGITS, "--time", 5, "--run", "r", "--chain", 3, "--submit")
    assert said.startswith("job 41 -> 42 -> 43; run runs/r; logs in runs/jobs/r\n")
    assert Path("calls").read_text().count("--dependency=afterany:4") == 2 and Path("runs/jobs/r/job.sh").read_text().startswith("#!/bin/bash")
    assert relaunch(["status", "41"]) == 0 and relaunch(["cancel", "41"]) == 0
    assert "scancel 41 42 43" in Path("calls").read_text()


def test_status_from_whoever_still_knows(scheduler, capsys):
    Path("runs/jobs/r").mkdir(parents=True)
    Path("runs/jobs/r/7.json").write_text(json.dumps({"ids": ["7"], "runs": ["runs/r"], "logs": "runs/jobs/r"}))
    Path("runs/r").mkdir()
    RunDir("runs/r").write_status("preempted", 75, 120, "stopped by SIGUSR1, and saved")
    gone = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    record = "echo 'JobId=7 JobName=r JobState=COMPLETED Reason=None Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0'"
    for tools, expected in (({"squeue": "echo '7|PENDING|Resources, '"}, "job 7: PENDING (Resources)"),
                            ({"squeue": gone, "scontrol": record}, "job 7: COMPLETED (came back 2 times, exit code 0)"),
                            ({"squeue": gone, "scontrol": gone, "sacct": "echo '7|TIMEOUT|0:0'"}, "job 7: TIMEOUT (exit code 0:0)"),
                            ({"squeue": gone, "scontrol": gone, "sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1"}, "")):
        scheduler(**tools)
        assert relaunch(["status", "7"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(expected) and "run runs/r: preempted, code 75, step 120, stopped by SIGUSR1, and saved" in said
    for name in ("7", "71", "7_0"):
        Path(f"runs/jobs/r/{name}.out").write_text(f"of {name}\n")
    assert relaunch(["logs", "7"]) == 0 and capsys.readouterr().out == "==> runs/jobs/r/7.out\nof 7\n==> runs/jobs/r/7_0.out\nof 7_0\n"
    scheduler(squeue=gone, scontrol=record)
    assert relaunch(["cancel", "7"]) == 0 and "nothing was left to cancel" in capsys.readouterr().out


@pytest.mark.parametrize("said, expected", [
    ("sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified", "sinfo -s"),
    ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified", "--account NAME"),
    ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", "less --time")])
def test_a_refusal_is_one_line_with_the_schedulers_reason(scheduler, said, expected):
    scheduler(sbatch=f"cat >&2 <<'E'\n{said}\nE\nexit 1")
    line = refused("slurm", *DIGITS, "--time", "5", "--submit")
    assert expected in line and said.splitlines()[-1].split("error: ")[1] in line and "\n" not in line


def test_without_a_scheduler(monkeypatch):
    monkeypatch.setenv("PATH", str(Path.cwd()))
    for words in (["submit", "slurm", *DIGITS, "--time", "5", "--submit"], ["status", "7"], ["cancel", "7"]):
        with pytest.raises(Failure) as caught:
            relaunch(words)
        assert caught.value.code == 69 and "login node" in caught.value.fix


def test_a_jobs_number():
    for verb in ("status", "logs", "cancel"):
        with pytest.raises(Failure, match="not a job's number"):
            relaunch([verb, "7; rm"])


# kubernetes ------------------------------------------------------------------------------------------------------------

PODS = ["--image", "registry/relaunch:1", "--volume", "sets:/data", "--volume", "runs:/runs", "--run", "/runs/Über 1_x", "--env", "HF_TOKEN", "--env", "A=no"]


@pytest.mark.parametrize("more", [[], ["--pytorchjob"]], ids=["trainjob", "pytorchjob"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_manifests_are_as_the_published_api_has_them(written, more, nodes):
    documents = list(yaml.safe_load_all(written("kubernetes", "mnist", "--config", "8gpu", "--nodes", nodes, "--queue", "team-a", "--time", 60, *PODS, *more)))
    assert [d["kind"] for d in documents] == (["PyTorchJob"] if more else ["TrainingRuntime", "TrainJob"])
    for document in documents:
        assert kubernetes_api.problems(document, kubernetes_api.KINDS[document["kind"]]) == []
    job, whole = documents[-1], json.dumps(documents)
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team-a"}
    assert (job["spec"]["runPolicy"] if more else job["spec"])["suspend"] is True
    for text in ('{"medium": "Memory"}', '"mountPath": "/dev/shm"', '"claimName": "runs"', '"nvidia.com/gpu": 8', '"terminationGracePeriodSeconds": 180'):
        assert text in whole
    assert kubernetes.GRACE > 120  # what the engine is given to save and leave (launch/plan.py)


def test_the_check_of_manifests_notices(written):
    runtime, job = yaml.safe_load_all(written("kubernetes", "mnist", "--config", "1gpu", *PODS))
    job["spec"]["trainer"]["numNodes"] = "1"
    job["spec"]["numNodes"] = 1
    del job["spec"]["runtimeRef"]["name"]
    runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"][1]["action"] = "Retry"
    found = kubernetes_api.problems(job, kubernetes_api.TRAINJOB) + kubernetes_api.problems(runtime, kubernetes_api.TRAINING_RUNTIME)
    assert len(found) == 4 and "numNodes: '1' is not int" in " ".join(found)


def test_a_trainjob_comes_back_on_75_alone(written):
    runtime, job = yaml.safe_load_all(written("kubernetes", "mnist", "--config", "8gpu", "--nodes", 2, "--requeues", 5, *PODS))
    node = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert node["backoffLimit"] == 10 and node["template"]["spec"]["restartPolicy"] == "Never"  # each start again costs one pod per node
    disruption, again, others = node["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Ignore" and again["action"] == "Count" and again["onExitCodes"]["values"] == [75]
    assert (others["action"], others["onExitCodes"]["operator"], others["onExitCodes"]["values"]) == ("FailJob", "NotIn", [75])
    assert job["spec"]["trainer"]["command"][:4] == ["python3", "-m", "launch", "train"]  # process 1: no shell that swallows signals
    assert job["spec"]["trainer"]["env"][0] == {"name": "A", "value": "no"}  # not False


@pytest.mark.parametrize("code, seen", [(0, 0), (75, 203), (64, 64), (1, 1), (137, 1), (143, 1)])
def test_a_pytorchjob_comes_back_on_75_alone(written, code, seen):
    job = yaml.safe_load(written("kubernetes", "mnist", "--config", "1gpu", *PODS, "--pytorchjob"))
    master = job["spec"]["pytorchReplicaSpecs"]["Master"]
    assert master["restartPolicy"] == "ExitCode"  # again from 128 up, and only then
    words = master["template"]["spec"]["containers"][0]["command"]
    Path("python3").write_text(f"#!/bin/bash\nexit {code}\n")
    Path("python3").chmod(0o755)
    assert subprocess.run(words, env={"PATH": f"{Path.cwd()}:/usr/bin:/bin"}).returncode == seen


def test_the_shell_of_a_pytorchjob_passes_the_stop_on(written):
    words = yaml.safe_load(written("kubernetes", "mnist", "--config", "1gpu", *PODS, "--pytorchjob"))["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["command"]
    Path("python3").write_text("#!/bin/bash\ntrap 'sleep 0.3; exit 75' TERM\necho ready\nwhile :; do sleep 0.05; done\n")
    Path("python3").chmod(0o755)
    with subprocess.Popen(words, env={"PATH": f"{Path.cwd()}:/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout.readline() == "ready\n"
        shell.terminate()
        assert shell.wait(10) == 203


# sheet -----------------------------------------------------------------------------------------------------------------


def test_a_sheet_with_the_platforms_paths(written):
    text = written("sheet", "cifar10", "--config", "8gpu", "--gpus-per-node", 4, "--user", "anna", "--image", "torch:2.10", "--node-type", "a100", "--run", "first", "--epochs", 5)
    command = "cd /code && exec python3 -m launch train cifar10 --config 8gpu --epochs 5 --num-processes 4 --data /data/anna/cifar10 --run /output/first --resume auto"
    assert "GPUs:           4" in text and "Node type:      a100" in text and f"Start command:\n{command}\n" in text
    assert f"mkdir -p /output && cp -rn /myproject_outputs/THIS_TASK/first /output/ && {command}" in text
    assert subprocess.run(["bash", "-n"], input=command, text=True).returncode == 0


def test_a_sheet_that_goes_on_from_an_earlier_task(written):
    text = written("sheet", "cifar10", "--config", "1gpu", "--user", "anna", "--run", "first", "--from-task", "t 1", "--dataset", "c10")
    assert "Start command:\nmkdir -p /output && cp -rn '/myproject_outputs/t 1/first' /output/ && cd /code" in text and "--data /data/anna/c10 " in text


def test_help(capsys):
    assert relaunch(["submit", "--help"]) == 0 and "kubernetes" in capsys.readouterr().out
    for kind, flag in (("slurm", "--sweep"), ("kubernetes", "--pytorchjob"), ("sheet", "--from-task")):
        assert relaunch(["submit", kind, "--help"]) == 0 and flag in capsys.readouterr().out
    for verb in ("status", "logs", "cancel"):
        assert relaunch([verb, "--help"]) == 0 and "JOB" in capsys.readouterr().out
    assert queue.main("status", ["--help"]) == 0


def test_no_tensors_are_needed():
    code = f"import sys; from launch import submit; submit.main({['slurm', *DIGITS, '--time', '5']}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([describe.sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(Path(describe.__file__).parents[2])}, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_pages_commands_are_taken(written):
    from launch.__main__ import VERBS

    page = (Path(describe.__file__).parents[2] / "docs/clusters.md").read_text()
    Path("site.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL).group(1))
    digits_as("cifar10")
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line.split("|")[0]) for line in lines if line]
    assert len(commands) > 8 and all(words[0] == "relaunch" and words[1] in VERBS for words in commands)
    for words in commands:
        if words[1] == "submit":
            written(*[word for word in words[2:] if word != "--submit"])
