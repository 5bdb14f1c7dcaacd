"""The parts of published Kubernetes APIs that our manifests use: fields, types, what is required.

Written down from the types of
  Kubeflow Trainer v2.2 to v2.4, trainer.kubeflow.org/v1alpha1 (TrainJob, TrainingRuntime, JobSet v1alpha2)
    and what a pod posts to the controller's end point for its status, UpdateTrainJobStatusRequest
  Kubeflow Training Operator v1.9, kubeflow.org/v1 (PyTorchJob)
  Kubernetes v1.31, batch/v1 (JobSpec, PodFailurePolicy) and core/v1 (PodSpec)
Fields of theirs that we do not use are left out: a manifest with one of them fails here until it is added.
"""

import re

QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1035, at most 63
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
PATH = re.compile(r"/[^:]*")


def as_kubelet_reads(text: str) -> str:
    """A word of a command or a variable's value: $(NAME) is replaced, $$ is a dollar, else it stays."""
    return re.sub(
        r"\$(\$|\((\w+)\))?", lambda found: f"<{found[2]}>" if found[2] else "$" + (found[1] or "")[1:], text
    )


class Required:
    def __init__(self, kind):
        self.kind = kind


class Map:
    def __init__(self, keys, values):
        self.keys, self.values = keys, values


META = {"name": Required(DNS_LABEL), "labels": Map(str, LABEL_VALUE)}
ENV = [
    {
        "name": Required(re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")),
        "value": str,
        "valueFrom": {
            "secretKeyRef": {"name": Required(str), "key": Required(re.compile(r"[-._a-zA-Z0-9]+"))}
        },
    }
]
RESOURCES = {"limits": Map(str, QUANTITY), "requests": Map(str, QUANTITY)}
CONTAINER = {
    "name": Required(DNS_LABEL),
    "image": str,
    "command": [str],
    "args": [str],
    "env": ENV,
    "resources": RESOURCES,
    "workingDir": str,
    "volumeMounts": [{"name": Required(DNS_LABEL), "mountPath": Required(PATH), "readOnly": bool}],
}
POD = {
    "containers": Required([CONTAINER]),
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "terminationGracePeriodSeconds": int,
    "volumes": [
        {
            "name": Required(DNS_LABEL),
            "emptyDir": {"medium": {"", "Memory"}, "sizeLimit": QUANTITY},
            "persistentVolumeClaim": {"claimName": Required(str), "readOnly": bool},
        }
    ],
}
POD_TEMPLATE = {"metadata": {"labels": Map(str, LABEL_VALUE)}, "spec": POD}
JOB = {
    "backoffLimit": int,
    "template": Required(POD_TEMPLATE),
    "podFailurePolicy": {
        "rules": Required(
            [
                {
                    "action": Required({"FailJob", "FailIndex", "Ignore", "Count"}),
                    "onExitCodes": {
                        "containerName": str,
                        "operator": Required({"In", "NotIn"}),
                        "values": Required([int]),
                    },
                    "onPodConditions": [
                        {"type": Required(str), "status": Required({"True", "False", "Unknown"})}
                    ],
                }
            ]
        )
    },
}

TRAINING_RUNTIME = {
    "apiVersion": Required({"trainer.kubeflow.org/v1alpha1"}),
    "kind": Required({"TrainingRuntime"}),
    "metadata": Required(META),
    "spec": {
        "mlPolicy": {"numNodes": int, "torch": {}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": Required(DNS_LABEL),
                        "template": Required(
                            {"metadata": {"labels": Map(str, LABEL_VALUE)}, "spec": Required(JOB)}
                        ),
                    }
                ]
            }
        },
    },
}
TRAINJOB = {
    "apiVersion": Required({"trainer.kubeflow.org/v1alpha1"}),
    "kind": Required({"TrainJob"}),
    "metadata": Required(META),
    "spec": {
        "runtimeRef": Required(
            {
                "name": Required(str),
                "apiGroup": {"trainer.kubeflow.org"},
                "kind": {"TrainingRuntime", "ClusterTrainingRuntime"},
            }
        ),
        "trainer": {
            "image": str,
            "command": [str],
            "args": [str],
            "env": ENV,
            "numNodes": int,
            "resourcesPerNode": RESOURCES,
        },
        "suspend": bool,
        "activeDeadlineSeconds": int,
    },
}
SHORT = re.compile(r".{1,64}")
STATUS_REQUEST = {
    "trainerStatus": Required(
        {
            "progressPercentage": int,
            "estimatedRemainingSeconds": int,
            "metrics": [{"name": Required(SHORT), "value": Required(SHORT)}],
            "lastUpdatedTime": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"),
        }
    )
}
REPLICA = {
    "replicas": int,
    "restartPolicy": {"Always", "OnFailure", "Never", "ExitCode"},
    "template": POD_TEMPLATE,
}
PYTORCHJOB = {
    "apiVersion": Required({"kubeflow.org/v1"}),
    "kind": Required({"PyTorchJob"}),
    "metadata": Required(META),
    "spec": {
        "runPolicy": {
            "cleanPodPolicy": {"All", "Running", "None"},
            "backoffLimit": int,
            "activeDeadlineSeconds": int,
            "suspend": bool,
        },
        "pytorchReplicaSpecs": Required({"Master": Required(REPLICA), "Worker": REPLICA}),
    },
}
KINDS = {"TrainingRuntime": TRAINING_RUNTIME, "TrainJob": TRAINJOB, "PyTorchJob": PYTORCHJOB}


def problems(value, shape, where: str = "") -> list[str]:
    """What in `value` is not as the API has it; each names the field."""
    if isinstance(shape, Required):
        shape = shape.kind
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where} is not a mapping"]
        found = [f"{where}.{name} is unknown" for name in value if name not in shape]
        found += [
            f"{where}.{name} is missing"
            for name, kind in shape.items()
            if isinstance(kind, Required) and name not in value
        ]
        return found + [
            p
            for name in value
            if name in shape
            for p in problems(value[name], shape[name], f"{where}.{name}")
        ]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is not a list"]
        return [p for i, item in enumerate(value) for p in problems(item, shape[0], f"{where}[{i}]")]
    if isinstance(shape, Map):
        return (
            [p for k, v in value.items() for p in problems(v, shape.values, f"{where}[{k}]")]
            if isinstance(value, dict)
            else [f"{where} is not a mapping"]
        )
    if isinstance(shape, set):
        return [] if value in shape else [f"{where}: {value!r} is not one of {sorted(shape)}"]
    if isinstance(shape, re.Pattern):
        return (
            []
            if shape.fullmatch(str(value)) and not isinstance(value, bool)
            else [f"{where}: {value!r} does not fit {shape.pattern}"]
        )
    return [] if type(value) is shape else [f"{where}: {value!r} is not {shape.__name__}"]
