"""A Kubernetes manifest: a TrainJob (Kubeflow Trainer v2) with its runtime, or a PyTorchJob v1.

    relaunch submit kubernetes cifar10 --config 8gpu --nodes 2 --image IMAGE | kubectl create -f -

The TrainJob brings a TrainingRuntime of its own: grace period, volumes and the rule for code 75 belong
there. Each pod finds out which of how many it is from its environment (launch/platforms.py).
"""

from __future__ import annotations

import re
import shlex

import yaml

from relaunch.data_prep.errors import PREEMPTED, USAGE, Failure
from relaunch.launch.submit.describe import Job
from relaunch.launch.submit.surroundings import checked, environment

GRACE = 180  # s from SIGTERM to SIGKILL: above the 120 s that accelerate is given to save and leave
CODE = "/relaunch-code"  # where a workload of one's own lies in a pod
LARGEST = 1_000_000  # bytes of a ConfigMap, with room for its keys
RETRY = 128 + PREEMPTED  # what PyTorchJob takes for "again": it restarts on codes from 128 up alone


def label(text: str) -> str:
    """A name as Kubernetes takes it (RFC 1035), with room for what controllers append."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return name if name[:1].isalpha() else f"r-{name}".strip("-")


def mounts(job: Job) -> tuple[list[dict], list[dict]]:
    """(volumes, volumeMounts): memory for /dev/shm, of which containers have 64 MB, and the claims."""
    volumes, mounted = (
        [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        [{"name": "shm", "mountPath": "/dev/shm"}],
    )
    for i, text in enumerate(job.given.volume):
        claim, _, path = text.partition(":")
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", claim) or not path.startswith("/"):
            raise Failure(
                USAGE, f"--volume {text} is not CLAIM:PATH", "write --volume datasets:/data, for example"
            )
        volumes.append({"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": claim}})
        mounted.append({"name": f"claim-{i}", "mountPath": path})
    return volumes, mounted


def variables(job: Job) -> list[dict]:
    """Values of what may be read by others; secrets by reference to a Secret named `relaunch`."""
    kept, hidden = environment(job.given.env, capture=False)
    return [{"name": k, "value": literal(v)} for k, v in kept.items()] + [
        {"name": k, "valueFrom": {"secretKeyRef": {"name": "relaunch", "key": k}}} for k in hidden
    ]


def manifest(job: Job) -> str:
    if not job.given.image:
        raise Failure(USAGE, "a pod needs an image", "add --image REGISTRY/NAME:TAG")
    volumes, mounted = mounts(job)
    documents = []
    if job.code:
        documents.append(config_map(job, label(job.name), volumes, mounted))
        job = job.with_code_in(CODE)
    if not any(job.run.startswith(m["mountPath"].rstrip("/") + "/") for m in mounted[1:]):
        raise Failure(
            USAGE,
            f"the run {job.run} would be gone with its pod",
            "add --volume CLAIM:/runs --run /runs/NAME, a claim that all nodes can write",
        )
    queue = job.given.queue
    meta = {
        "name": label(job.name),
        **({"labels": {"kueue.x-k8s.io/queue-name": checked("--queue", queue)}} if queue else {}),
    }
    limits = {"cpu": job.cpus, **({"nvidia.com/gpu": job.gpus} if job.gpus else {})}
    parts = {
        "image": checked("--image", job.given.image),
        "command": command(job),
        "env": variables(job),
        "resources": {"limits": limits, "requests": dict(limits)},
        "volumeMounts": mounted,
    }
    pod = {"terminationGracePeriodSeconds": GRACE, "volumes": volumes}
    documents += (pytorchjob if job.given.pytorchjob else trainjob)(job, meta, pod, parts, bool(queue))
    return "---\n".join(yaml.dump(d, Dumper=Plain, sort_keys=False, width=10000) for d in documents)


def config_map(job: Job, name: str, volumes: list[dict], mounted: list[dict]) -> dict:
    """The workload's own files, which each pod then finds in CODE. Its keys take no slash: the paths do."""
    keys = {path: f"file-{i}.py" for i, path in enumerate(job.code.contents)}
    if sum(map(len, job.code.contents.values())) > LARGEST:
        what = f"the files beside {job.code.main} are more than a ConfigMap takes"
        raise Failure(USAGE, what, "put them into the image as a package, and name them as module:NAME")
    try:
        data = {keys[path]: content.decode() for path, content in job.code.contents.items()}
    except UnicodeDecodeError as error:
        raise Failure(USAGE, f"a file beside {job.code.main} is not UTF-8 ({error})", "save it so") from error
    items = [{"key": key, "path": path} for path, key in keys.items()]
    volumes.append({"name": "code", "configMap": {"name": f"{name}-code", "items": items}})
    mounted.append({"name": "code", "mountPath": CODE, "readOnly": True})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-code"}, "data": data}


def watched(job: Job) -> str:
    """What to type once the job is created, to see where it stands and what it says."""
    name = label(job.name)
    kind, pods = ("trainjob", "jobset.sigs.k8s.io/jobset-name")
    told = f"kubectl get trainjob {name} -o jsonpath='{{.status.trainerStatus}}'"
    if job.given.pytorchjob:
        kind, pods, told = (
            "pytorchjob",
            "training.kubeflow.org/job-name",
            f"kubectl describe pytorchjob {name}",
        )
    ends = f"kubectl delete {kind} {name}"
    return f"{told}   kubectl logs -f -l {pods}={name} --prefix   {ends}"


class Plain(yaml.SafeDumper):
    """Without anchors: the same volumes twice are written twice."""

    def ignore_aliases(self, data):
        return True


def literal(text: str) -> str:
    """Text in which Kubernetes is to replace nothing: `$(NAME)` would be a variable's value."""
    return text.replace("$", "$$")


def command(job: Job) -> list[str]:
    words = [literal(w) for w in job.command("--run", job.run, "--resume", "auto", program=("-m", "launch"))]
    if not job.given.pytorchjob:
        return words  # the launcher itself is process 1 and gets the signals
    # a shell in between passes signals on, and says 75 in the number that this API restarts on
    return [
        "bash",
        "-c",
        f"{shlex.join(words)} & p=$!; trap 'kill -TERM $p' TERM; "
        "while wait $p; c=$?; kill -0 $p 2>/dev/null; do :; done; "
        f"[ $c = {PREEMPTED} ] && exit {RETRY}; [ $c -lt 128 ] || c=1; exit $c",
    ]


def deadline(job: Job) -> dict:
    """Of all starts together, and for good."""
    return {"activeDeadlineSeconds": job.given.time} if job.given.time else {}


def trainjob(job: Job, meta: dict, pod: dict, parts: dict, queued: bool) -> list[dict]:
    trainer = {
        "image": parts["image"],
        "command": parts["command"],
        "env": parts["env"],
        "numNodes": job.nodes,
        "resourcesPerNode": parts["resources"],
    }
    container = {"name": "node", **{k: parts[k] for k in ("image", "volumeMounts")}}
    rules = [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },  # drained, or preempted
        {
            "action": "Count",
            "onExitCodes": {"containerName": "node", "operator": "In", "values": [PREEMPTED]},
        },
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "node", "operator": "NotIn", "values": [PREEMPTED]},
        },
    ]
    node = {
        "backoffLimit": job.given.requeues * job.nodes,
        "podFailurePolicy": {"rules": rules},  # every node's pod counts
        "template": {"spec": {"restartPolicy": "Never", **pod, "containers": [container]}},
    }
    step = {"metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}, "spec": node}
    runtime = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": meta["name"]},
        "spec": {
            "mlPolicy": {"numNodes": job.nodes, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": step}]}},
        },
    }
    spec = {
        "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": meta["name"]},
        "trainer": trainer,
    }
    return [
        runtime,
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": meta,
            "spec": {**spec, **deadline(job), **({"suspend": True} if queued else {})},
        },
    ]


def pytorchjob(job: Job, meta: dict, pod: dict, parts: dict, queued: bool) -> list[dict]:
    replica = {
        "restartPolicy": "ExitCode",
        "template": {"spec": {**pod, "containers": [{"name": "pytorch", **parts}]}},
    }
    replicas = {
        "Master": {"replicas": 1, **replica},
        **({"Worker": {"replicas": job.nodes - 1, **replica}} if job.nodes > 1 else {}),
    }
    policy = {
        "cleanPodPolicy": "Running",
        "backoffLimit": job.given.requeues * job.nodes,
        **deadline(job),
        **({"suspend": True} if queued else {}),
    }
    return [
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": meta,
            "spec": {"runPolicy": policy, "pytorchReplicaSpecs": replicas},
        }
    ]
