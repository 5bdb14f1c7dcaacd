"""On a real GPU: `make test-gpu`. Each of these is skipped on a machine that shows none.

What a CPU can show is shown elsewhere. Here: kernels that exist and are deterministic, bits that a resume
keeps in each precision, the loss scale, memory that runs out, and every way to start.
"""

import json
import sys
from pathlib import Path

import pytest

from rigs import REPOSITORY
from rigs.processes import Process
from rigs.runs import outcome, status

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="this machine shows no NVIDIA GPU"),
]
CONFIGS = ("1gpu", "bf16", "fp16")
ARCHS = (
    ("mnist", "cnn"),
    ("cifar10", "net"),
    ("cifar10", "net_bn"),
    ("cifar10", "simple_cnn"),
    ("cifar10", "resnet18"),
    ("cifar10", "torchvision:mobilenet_v3_small"),
    ("tiny_imagenet", "resnet18"),
    ("tiny_imagenet", "torchvision:convnext_tiny"),
    ("wikitext2", "transformer"),
    ("wikitext2", "rotary"),
)
# without the dashes it takes --run for an option of its own, before Python 3.12.4
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "1", "-m", "--")
WORKLOADS = ("mnist", "cifar10", "tiny_imagenet", "wikitext2")


def relaunch(*words) -> Process:
    return Process([sys.executable, "-m", "launch", *map(str, words)]).end(240)


@pytest.mark.parametrize("config", CONFIGS)
def test_doctor_rehearses_on_it(relaunch_env, config):
    found = relaunch("doctor", "mnist", "--config", config)
    assert found.code == 0, found.out + found.err
    assert "NVIDIA" in found.out


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("workload, arch", ARCHS)
def test_three_steps_of_every_arch(trained, relaunch_env, config, workload, arch):
    """With all that a step may hold: two micro-batches, a bounded gradient, CutMix for images."""
    mixed = () if workload == "wikitext2" else ("--cutmix", 1)
    flags = ("--arch", arch, "--grad-accum-steps", 2, "--clip", 1, *mixed, "--max-steps", 3)
    assert trained(config, workload, *flags) == 0
    assert json.loads((relaunch_env / "run/plan.json").read_text())["device"] == "cuda"


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_same_bits_again_and_after_a_stop(trained, relaunch_env, config, workload):
    flags = (config, workload, "--max-steps", 7, "--save-every", 3)
    assert trained(*flags, run="whole") == 0
    assert trained(*flags, run="again") == 0
    assert trained(*flags, "--stop-after", 4, run="parts") == 75
    assert trained(*flags, "--resume", "auto", run="parts") == 0
    whole = outcome(relaunch_env / "whole")
    assert outcome(relaunch_env / "again") == whole
    assert outcome(relaunch_env / "parts") == whole


OPTIONS = {
    "compiled": "cifar10 --compile on",
    "on any number of processes": "cifar10 --arch net --elastic-exact --clip 1",
    "checked": "cifar10 --check-every 2",
    "muon and an average": "cifar10 --arch whitened_small --optimizer muon --ema 0.9",
    "context": "wikitext2 --arch rotary --tied --context 12 --optimizer muon --ema 0.9",
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of a compiler's own
@pytest.mark.parametrize("config", ["1gpu", "bf16"])
@pytest.mark.parametrize("command", OPTIONS.values(), ids=OPTIONS)
def test_what_changes_a_step_resumes_to_the_bit(trained, relaunch_env, config, command):
    flags = (config, *command.split(), "--max-steps", 7, "--save-every", 3)
    assert trained(*flags, run="whole") == 0
    assert trained(*flags, "--stop-after", 4, run="parts") == 75
    assert trained(*flags, "--resume", "auto", run="parts") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


@pytest.mark.parametrize("config", ["1gpu", "bf16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_rollback_is_the_same_after_a_kill(trained, relaunch_env, fault, config, optimizer):
    words = ("--optimizer", optimizer, "--max-steps", 9, "--save-every", 3, "--on-nan", "rollback")
    flags = (config, "cifar10", *words)
    fault("gradient=5,do=nan")
    assert trained(*flags, run="whole") == 0
    whole = outcome(relaunch_env / "whole")
    assert [found["step"] for found in whole["state"]["rollbacks"]] == [5]
    fault(f"gradient=5,do=nan,once={relaunch_env}/met;step=7,do=raise,once={relaunch_env}/died")
    with pytest.raises(RuntimeError):
        trained(*flags, run="parts")
    assert trained(*flags, "--resume", "auto", run="parts") == 0
    assert outcome(relaunch_env / "parts") == whole


def test_fp16_passes_by_a_gradient_that_is_not_finite(trained, relaunch_env, fault):
    fault("gradient=5,do=nan")
    assert trained("fp16", "mnist", "--max-steps", 9, run="run") == 0
    assert outcome(relaunch_env / "run")["state"]["skipped"] >= 1


def test_what_is_saved_beside_the_steps_is_its_own_step(trained, relaunch_env):
    """The device copies it while the next steps are handed to it."""
    flags = ("1gpu", "cifar10", "--arch", "resnet18", "--max-steps", 6)
    assert trained(*flags, "--save-every", 1, "--keep", 9, run="each") == 0
    assert trained(*flags, "--stop-after", 4, run="parts") == 75  # which waits for its one save
    for name in ("model.safetensors", "optimizer.safetensors"):
        each, alone = (relaunch_env / run / "checkpoints/step-000000004" / name for run in ("each", "parts"))
        assert each.read_bytes() == alone.read_bytes(), name


def test_fp16_from_a_scale_that_is_far_too_large(trained, relaunch_env, monkeypatch):
    """The first steps are skipped and counted; the scale that was found goes on after a stop."""
    import torch

    from relaunch.trainers.group import runtime

    class Scaled(runtime.Runtime):
        def __init__(self, *args):
            super().__init__(*args)
            self.accelerator.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40, growth_interval=5)

    monkeypatch.setattr(runtime, "Runtime", Scaled)
    command = ("fp16", "mnist", "--max-steps", 60)
    assert trained(*command, run="whole") == 0
    whole = outcome(relaunch_env / "whole")
    assert whole["state"]["skipped"] > 10 and whole["state"]["scaler"]["scale"] < 2.0**30
    assert trained(*command, "--stop-after", 11, run="parts") == 75
    assert trained(*command, "--resume", "auto", run="parts") == 0
    assert outcome(relaunch_env / "parts") == whole


def test_memory_that_runs_out_gives_advice(trained, capfd):
    import torch

    torch.cuda.set_per_process_memory_fraction(0.001)
    try:
        code = trained("1gpu", "tiny_imagenet", "--batch-size", 40, "--max-steps", 3)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    said = capfd.readouterr().err
    assert code == 69 and "--batch-size" in said and "Traceback" not in said, said


def test_every_way_to_start_is_the_same_training(relaunch_env):
    flags = ("mnist", "--batch-size", 16, "--max-steps", 4, "--threads", 1, "--log-interval", 2)
    assert relaunch("train", *flags, "--config", "1gpu", "--run", "./ours").code == 0
    ours = outcome(relaunch_env / "ours")
    program = ["-m", "trainers.train", *map(str, flags)]
    config = REPOSITORY / "accelerate_configs/1gpu.yaml"
    ways = {
        "accelerate": ["-m", "accelerate.commands.launch", "--config_file", str(config), *program],
        "torchrun": [*TORCHRUN, *program[1:]],
        "python": program,
    }
    for name, words in ways.items():
        done = Process([sys.executable, *words, "--run", f"./{name}"]).end(240)
        assert done.code == 0, (name, done.out + done.err)
        assert outcome(relaunch_env / name) == ours, name


@pytest.mark.parametrize("config", ["fp16", "bf16"])
def test_plain_accelerate_has_the_precision_of_its_config(relaunch_env, config):
    file = REPOSITORY / f"accelerate_configs/{config}.yaml"
    words = ["-m", "accelerate.commands.launch", "--config_file", str(file), "-m", "trainers.train", "mnist"]
    done = Process([sys.executable, *words, "--max-steps", "2", "--run", "./run"]).end(240)
    assert done.code == 0, done.out + done.err
    assert json.loads((relaunch_env / "run/plan.json").read_text())["precision"] == config


def test_an_error_in_a_step_leaves_at_once_under_torchrun(relaunch_env, monkeypatch):
    monkeypatch.setenv("RELAUNCH_FAULT", "step=3,do=raise")
    program = ["-m", "trainers.train", "mnist", "--batch-size", "16", "--max-steps", "9", "--run", "./run"]
    words = [*TORCHRUN, *program[1:]]
    done = Process([sys.executable, *words]).end(120)
    assert done.code != 0 and "RELAUNCH_FAULT at step 3" in done.err
    assert status(relaunch_env / "run")["state"] == "failed"


def test_a_checkpoint_is_scored_alike_on_both_devices(trained, relaunch_env):
    assert trained("1gpu", "cifar10", "--max-steps", 5) == 0
    found = []
    for config in ("1gpu", "cpu"):
        done = relaunch("evaluate", "./run", "--config", config, "--out", f"./{config}")
        assert done.code == 0, done.out + done.err
        (facts,) = (relaunch_env / config).glob("*.json")
        found.append(json.loads(facts.read_text())["metrics"])
    assert found[0] == pytest.approx(found[1], rel=0.01)


# trainings in this process ------------------------------------------------------------------------


@pytest.fixture
def trained(train, monkeypatch):
    """trained("fp16", "mnist", "--max-steps", 3, run="run"): trains in this process, as accelerate has it."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    def forget():
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()

    def run(config: str, workload: str, *flags, run: str = "run") -> int:
        forget()
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", {"1gpu": "no"}.get(config, config))
        monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
        size = ("--bptt", 8) if workload == "wikitext2" else ()
        return train(workload, "--batch-size", 8, *size, "--log-interval", 2, *flags, "--run", f"./{run}")

    yield run
    forget()
