"""What `relaunch submit kubernetes | sheet` writes: manifests of the published API, and forms to paste."""

import json
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from relaunch.launch.processes import listens
from relaunch.launch.submit import kubernetes
from rigs import kubernetes_api
from rigs.submitting import DIGITS, relaunch

# kubernetes ---------------------------------------------------------------------------------------

PODS = [
    "--image",
    "registry/relaunch:1",
    "--volume",
    "sets:/data",
    "--volume",
    "runs:/runs",
    "--run",
    "/runs/Über 1_x",
    "--env",
    "HF_TOKEN",
    "--env",
    "A=no",
]


@pytest.mark.parametrize("more", [[], ["--pytorchjob"]], ids=["trainjob", "pytorchjob"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_manifests_are_as_the_published_api_has_them(written, more, nodes):
    documents = list(
        yaml.safe_load_all(
            written(
                "kubernetes",
                "mnist",
                "--config",
                "8gpu",
                "--nodes",
                nodes,
                "--queue",
                "team-a",
                "--time",
                60,
                *PODS,
                *more,
            )
        )
    )
    assert [d["kind"] for d in documents] == (["PyTorchJob"] if more else ["TrainingRuntime", "TrainJob"])
    for document in documents:
        assert kubernetes_api.problems(document, kubernetes_api.KINDS[document["kind"]]) == []
    job, whole = documents[-1], json.dumps(documents)
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team-a"}
    assert (job["spec"]["runPolicy"] if more else job["spec"])["suspend"] is True
    for text in (
        '{"medium": "Memory"}',
        '"mountPath": "/dev/shm"',
        '"claimName": "runs"',
        '"nvidia.com/gpu": 8',
        '"terminationGracePeriodSeconds": 180',
    ):
        assert text in whole
    assert kubernetes.GRACE > 120  # what accelerate is given to save and leave (launch/plan.py)


def test_how_to_watch_it_is_said_beside_the_manifest(capsys):
    words = ["submit", "kubernetes", *DIGITS, "--image", "i", "--volume", "c:/runs", "--run", "/runs/Net_1"]
    for more, told, pods in (
        ([], "kubectl get trainjob net-1 -o jsonpath='{.status.trainerStatus}'", "jobset-name=net-1"),
        (["--pytorchjob"], "kubectl describe pytorchjob net-1", "job-name=net-1"),
    ):
        assert relaunch([*words, *more]) == 0
        said = capsys.readouterr()
        assert told in said.err and f"{pods} --prefix" in said.err and "kubectl" not in said.out


def test_the_check_of_manifests_notices(written):
    runtime, job = yaml.safe_load_all(written("kubernetes", "mnist", "--config", "1gpu", *PODS))
    job["spec"]["trainer"]["numNodes"] = "1"
    job["spec"]["numNodes"] = 1
    del job["spec"]["runtimeRef"]["name"]
    runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"][
        1
    ]["action"] = "Retry"
    found = kubernetes_api.problems(job, kubernetes_api.TRAINJOB) + kubernetes_api.problems(
        runtime, kubernetes_api.TRAINING_RUNTIME
    )
    assert len(found) == 4 and "numNodes: '1' is not int" in " ".join(found)


def test_a_trainjob_comes_back_on_75_alone(written):
    runtime, job = yaml.safe_load_all(
        written("kubernetes", "mnist", "--config", "8gpu", "--nodes", 2, "--requeues", 5, *PODS)
    )
    node = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (
        node["backoffLimit"] == 10 and node["template"]["spec"]["restartPolicy"] == "Never"
    )  # each start again costs one pod per node
    disruption, again, others = node["podFailurePolicy"]["rules"]
    assert (
        disruption["action"] == "Ignore"
        and again["action"] == "Count"
        and again["onExitCodes"]["values"] == [75]
    )
    assert (others["action"], others["onExitCodes"]["operator"], others["onExitCodes"]["values"]) == (
        "FailJob",
        "NotIn",
        [75],
    )
    assert job["spec"]["trainer"]["command"][:4] == [
        "python3",
        "-m",
        "launch",
        "train",
    ]  # process 1: no shell that swallows signals
    assert job["spec"]["trainer"]["env"][0] == {"name": "A", "value": "no"}  # not False


@pytest.mark.parametrize("more", [[], ["--pytorchjob"]], ids=["trainjob", "pytorchjob"])
def test_kubernetes_replaces_nothing_in_what_was_typed(written, more):
    odd = "$(HOME) $$(HOME) $HOME 5% #'\"\\"
    words = ["--image", "i", "--volume", "c:/runs", "--run", f"/runs/{odd}", "--env", f"NOTE={odd}", *more]
    job = list(yaml.safe_load_all(written("kubernetes", *DIGITS, *words)))[-1]["spec"]
    pod = job["pytorchReplicaSpecs"]["Master"]["template"]["spec"] if more else {}
    part = pod["containers"][0] if more else job["trainer"]
    read = [kubernetes_api.as_kubelet_reads(word) for word in part["command"]]
    typed = shlex.split(read[2].split(" & ")[0]) if more else read
    assert typed[typed.index("--run") + 1] == f"/runs/{odd}"
    assert [kubernetes_api.as_kubelet_reads(v["value"]) for v in part["env"]] == [odd]


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
    words = yaml.safe_load(written("kubernetes", "mnist", "--config", "1gpu", *PODS, "--pytorchjob"))["spec"][
        "pytorchReplicaSpecs"
    ]["Master"]["template"]["spec"]["containers"][0]["command"]
    Path("python3").write_text(
        "#!/bin/bash\ntrap 'sleep 0.3; exit 75' TERM\necho ready\nwhile :; do sleep 0.05; done\n"
    )
    Path("python3").chmod(0o755)
    with subprocess.Popen(
        words, env={"PATH": f"{Path.cwd()}:/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout.readline() == "ready\n"
        while not listens(shell.pid, signal.SIGTERM):  # the program may be ready before the shell is
            time.sleep(0.01)
        shell.terminate()
        assert shell.wait(10) == 203


# sheet --------------------------------------------------------------------------------------------


def test_a_sheet_with_the_platforms_paths(written):
    text = written(
        "sheet",
        "cifar10",
        "--config",
        "8gpu",
        "--gpus-per-node",
        4,
        "--user",
        "anna",
        "--image",
        "torch:2.10",
        "--node-type",
        "a100",
        "--run",
        "first",
        "--epochs",
        5,
    )
    command = (
        "cd /code && exec python3 launch/__main__.py train cifar10 --config 8gpu --epochs 5 --num-processes "
        "4 --data /data/anna/cifar10 --run /output/first --resume auto"
    )
    assert (
        "GPUs:           4" in text
        and "Node type:      a100" in text
        and f"Start command:\n{command}\n" in text
    )
    assert f"mkdir -p /output && cp -rn /myproject_outputs/THIS_TASK/first /output/ && {command}" in text
    assert subprocess.run(["bash", "-n"], input=command, text=True).returncode == 0


def test_a_sheet_that_goes_on_from_an_earlier_task(written):
    text = written(
        "sheet",
        "cifar10",
        "--config",
        "1gpu",
        "--user",
        "anna",
        "--run",
        "first",
        "--from-task",
        "t 1",
        "--dataset",
        "c10",
    )
    assert (
        "Start command:\nmkdir -p /output && cp -rn '/myproject_outputs/t 1/first' /output/ && cd /code"
        in text
        and "--data /data/anna/c10 " in text
    )
