"""`relaunch lab`: what counts as done, what is left out and why, and pages that agree in two languages."""

import importlib
import json
import re
import signal
import string
import sys
import time
from pathlib import Path

import pytest

from relaunch.data_prep.errors import LOCKED, USAGE, Failure
from relaunch.launch import __main__ as launch
from relaunch.launch import command, lab
from relaunch.launch.facts import Facts
from relaunch.launch.lab import engine, mnist, proofs, report, wikitext2
from relaunch.launch.lab.engine import End
from relaunch.launch.lab.proofs import State
from relaunch.launch.lab.steps import VERB, Lab
from relaunch.launch.lab.words import LANGUAGES, WORDS, Say
from relaunch.trainers import goodput
from relaunch.trainers.rundir import RunDir
from rigs.processes import Process
from rigs.sets import pack_images

WORKS = {name: importlib.import_module(f"relaunch.launch.lab.{name}") for name in lab.LABS}
GPU = Facts(gpus=1, gpus_installed=1, gpu_names=("H100",))


def bench(folder, name: str = "mnist", **more) -> tuple[Lab, dict]:
    made = Lab(name=name, folder=folder / "lab", data=WORKS[name].QUICK_DATA, quick=True, **more)
    return made, {step.name: step for step in WORKS[name].steps(made)}


def leave_run(run: RunDir, words, world: int = 1, device: str = "cpu", state: str = "done") -> None:
    """What a training leaves that was started with these words."""
    job = command.job(command.split(list(words[1:]))[1])
    step = run.checkpoint(20)
    step.mkdir(parents=True)
    (step / "MANIFEST.json").write_text("{}")
    run.config.write_text(json.dumps(job.config.to_json()))
    run.plan.write_text(json.dumps({"world": world, "device": device, "total_steps": 20, "host": "far"}))
    run.status.write_text(json.dumps({"state": state, "step": 20, "seconds": 12.0}))
    rows = [
        {"step": 20, "samples": 1280, "epoch": 1.0, "split": split, "loss": 0.5, "top1": 90.0}
        for split in ("train", "val")
    ]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


# the sentences ------------------------------------------------------------------------------------


def test_both_languages_say_the_same_with_the_same_numbers():
    for key, pair in WORDS.items():
        assert len(pair) == len(LANGUAGES) and all(pair), key
        fields = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in pair]
        assert fields[0] == fields[1], key


def test_no_sentence_is_left_over_or_missing():
    """Keys are typed where they are said; a few are made of a name (change_device, time_beyond)."""
    files = [p for p in Path(report.__file__).parent.glob("*.py") if p.stem not in ("words", "sentences")]
    text = "".join(path.read_text() for path in files)
    made = {f"change_{name}" for name in WORKS["cifar10"].CHANGES}
    made |= {f"cause_{cause}" for cause in goodput.CAUSES}
    made |= {f"{what}_{which}" for what in ("time", "quality") for which in VERDICTS}
    typed = set(re.findall(r"""["'](\w+)["']""", text))
    assert WORDS.keys() - typed - made == set()
    said = set(re.findall(r'(?:say|prose|heading|under|titled)\("(\w+)"', text))
    assert said <= WORDS.keys() and made <= WORDS.keys()


VERDICTS = ("beyond", "within", "open", "unknown")


# the steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lab.LABS)
@pytest.mark.parametrize("quick", [False, True])
def test_every_step_is_a_command_that_could_be_typed(name, quick, tmp_path):
    made = Lab(name=name, folder=tmp_path, data=WORKS[name].QUICK_DATA, quick=quick, threads=1)
    steps = WORKS[name].steps(made)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for i, step in enumerate(steps):
        assert step.words[0] in launch.VERBS or step.words[0] in VERB
        assert set(step.after) <= set(names[:i])
        if step.words[0] == "train":
            command.job(command.split(list(step.words[1:]))[1])


def test_a_run_that_another_machine_trained_counts_if_it_is_what_was_asked(tmp_path):
    made, steps = bench(tmp_path)
    step = steps["gpu"]
    assert proofs.look(step, made, steps, Facts()) == State("cannot", "gpus", {"asked": 1, "here": 0})
    assert proofs.look(step, made, steps, GPU).kind == "todo"
    leave_run(made.run("gpu"), step.words, device="cuda")
    assert proofs.look(step, made, steps, Facts()).kind == "done"


def test_a_run_with_other_settings_or_on_another_device_is_not_taken_for_it(tmp_path):
    made, steps = bench(tmp_path)
    leave_run(made.run("gpu"), steps["gpu"].words, device="cpu")
    other = proofs.look(steps["gpu"], made, steps, Facts())
    assert (other.kind, other.facts["was"], other.facts["now"]) == ("other", "1 x cpu", "1 x cuda")
    leave_run(made.run("batch64"), [*steps["batch64"].words, "--lr", "0.5"])
    other = proofs.look(steps["batch64"], made, steps, Facts())
    assert (other.kind, other.facts["name"], other.facts["was"]) == ("other", "lr", 0.5)
    leave_run(made.run("batch1"), [*steps["batch1"].words, "--threads", "7"], state="preempted")
    assert proofs.look(steps["batch1"], made, steps, Facts()).kind == "todo"


def test_what_was_made_of_an_older_run_is_made_again(tmp_path):
    made, steps = bench(tmp_path)
    made.path("logs").mkdir(parents=True)
    leave_run(made.run("batch64"), steps["batch64"].words)
    steps["final"].leaves.mkdir(parents=True)
    assert proofs.look(steps["final"], made, steps, Facts()).kind == "todo"  # nothing says how it was made
    engine.write_note(made, steps["final"], steps, 1.0, 1.0)
    assert proofs.look(steps["final"], made, steps, Facts()).kind == "done"
    (made.run("batch64").checkpoint(20) / "MANIFEST.json").write_text('{"trained": "again"}')
    assert proofs.look(steps["final"], made, steps, Facts()).kind == "todo"


def test_the_time_left_learns_from_what_ran(tmp_path):
    made, steps = bench(tmp_path)
    made.path("logs").mkdir(parents=True)
    assert engine.pace(made, steps) == 1
    step = steps["network"]
    engine.write_note(made, step, steps, 3 * step.seconds, 1.0)
    assert engine.pace(made, steps) == pytest.approx(3)
    assert engine.remaining([steps["prep"]], 3) == pytest.approx(3 * steps["prep"].seconds)


def test_two_labs_do_not_work_in_one_folder(tmp_path):
    made, _ = bench(tmp_path)
    with engine.owned(made), pytest.raises(Failure) as failure, engine.owned(made):
        pass
    assert failure.value.code == LOCKED


@pytest.mark.parametrize(
    "words, what",
    [
        (["mnits"], "did you mean mnist"),
        (["mnist", "--lang", "de"], "there are en, zh"),
        (["mnist", "--threads", "0"], "--threads 0 is too small"),
        (["mnist", "--out", ""], "--out is empty"),
        (["mnist", "--quik"], "did you mean --quick"),
    ],
)
def test_a_mistake_is_found_before_anything_runs(words, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Failure) as failure:
        lab.main(words)
    assert failure.value.code == USAGE and what in failure.value.line()
    assert not any(tmp_path.iterdir())


def test_a_dry_run_lists_the_steps_and_what_goes_on_with_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert lab.main(["tiny_imagenet", "--lang", "zh", "--dry-run", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "8gpu" in said and "relaunch diff labs/tiny_imagenet/runs/cpu@first" in said
    assert not any(tmp_path.iterdir())


# what the figures say -----------------------------------------------------------------------------


def setting(size: int, step_ms: float) -> dict:
    names = ("aten::conv2d", "aten::mm", "aten::add_")
    operators = [{"name": n, "self_ms": 1.0, "share": s, "calls": 2} for n, s in zip(names, (0.5, 0.3, 0.1))]
    operators.append({"name": "outside operators", "self_ms": 1.0, "share": 0.1, "calls": 0})
    phases = {"input": 0.1, "forward": 0.4, "backward": 0.5, "optimizer": 2.0}
    each = {"batch_size": size, "step_ms": step_ms, "sample_us": 1000 * step_ms / size, "phases": phases}
    return each | {"operators": operators, "steps": 10, "device_name": "a CPU", "device": "cpu"}


def test_the_reading_of_a_profile_is_computed():
    settings = [setting(size, 2 + 0.1 * size) for size in (1, 16, 64)]
    assert mnist.line([(s["batch_size"], s["step_ms"]) for s in settings]) == pytest.approx((2, 0.1))
    english, chinese = ("\n".join(mnist.of_profile(Say(lang), settings, "cpu")) for lang in LANGUAGES)
    assert "2.00 ms that are spent whatever the batch holds" in english and "95 % of the step" in english
    assert "aten::conv2d takes 50 %" in english
    numbers = [set(re.findall(r"\d[\d.,]*\d|\d", text)) for text in (english, chinese)]
    assert numbers[0] == numbers[1]


def test_what_a_convolution_sees():
    """Two of width 3: five words, the middle one by most ways; nothing of the future."""
    field = wikitext2.receptive(8, layers=2, width=3)
    assert field[7] == pytest.approx([0, 0, 0, 1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9])
    assert field[0] == pytest.approx([1 / 9, *[0] * 7])
    even = wikitext2.distances([1 / 35] * 35, reach=5)
    assert (even["mean"], even["share"]) == (even["even_mean"], even["even"]) == ("17.0", "86")


def test_one_record_makes_a_page_in_either_language(tmp_path):
    """A machine without a GPU: the CPU's part is there, and the note says which command fills in the rest."""
    made, steps = bench(tmp_path)
    leave_run(made.run("batch64"), steps["batch64"].words)
    ends = {name: End(State("failed", "lacks", {"name": "prep"})) for name in steps}
    ends["batch64"] = End(State("done"))
    ends["gpu"] = End(proofs.look(steps["gpu"], made, steps, Facts()))
    pages = {}
    for lang in LANGUAGES:
        path = report.write(made, steps, ends, Facts(), mnist, lang)
        pages[lang] = path.with_suffix(".md").read_text()
        assert f'lang="{lang}' in path.read_text()
    for text in pages.values():
        assert "90.00 %" in text and "relaunch train mnist --config 1gpu" in text
    assert "Not measured" in pages["en"] and "未测量" in pages["zh"]


def test_commands_are_folded_as_a_shell_reads_them(tmp_path):
    from shlex import split

    from relaunch.launch.lab.bench import folded

    _, steps = bench(tmp_path)
    for step in steps.values():
        text = folded(step.typed)
        assert split(text.replace("\\\n", "")) == split(step.typed) and max(map(len, text.splitlines())) < 140


# really run ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lab_that_was_killed_goes_on_and_repeats_nothing(relaunch_env):
    """Killed in its second training; then on to the end; then the same page in Chinese, without a step."""
    pack_images(relaunch_env / "data/mnist", (28, 28, 1))
    words = ["lab", "mnist", "--quick", "--data", "mnist", "--data-root", "data", "--threads", "1"]

    def start(*more: str) -> Process:
        return Process([sys.executable, "-m", "launch", *words, *more])

    first = start().until("] batch16: ")
    while not (relaunch_env / "labs/mnist-quick/runs/batch16/config.json").exists():
        time.sleep(0.05)
    first.signal(signal.SIGKILL).popen.wait()
    kept = relaunch_env / "labs/mnist-quick"
    before = {p: p.stat().st_mtime_ns for p in (kept / "runs/batch64/status.json", kept / "network.json")}
    second = start().end(400)
    assert second.code == 0, second.out + second.err
    assert "batch64: done before" in second.out and "network: done before" in second.out
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    english = (kept / "report.md").read_text()
    assert "Not measured: gpu needs 1 GPU" in english and "aten::" in english
    third = start("--lang", "zh").end()
    assert third.code == 0 and ": relaunch " not in third.out
    chinese = (kept / "report.md").read_text()
    rows = [re.findall(r"^\|.*\d.*\|$", text, re.MULTILINE) for text in (english, chinese)]
    numbers = [re.findall(r"\d[\d.,]*", "\n".join(each)) for each in rows]
    assert numbers[0] == numbers[1] and len(numbers[0]) > 100
