"""Which samples a rank trains on, and with which randomness: pure functions, whatever the number of ranks."""

from functools import partial

import numpy as np
import pytest
import torch

from relaunch.data_prep.packed import open_packed
from relaunch.trainers.build import make_batches
from relaunch.trainers.config import parse
from relaunch.trainers.tasks import image_batches, order
from rigs.sets import TRAIN

CPU = torch.device("cpu")


def make(sets, command: str, rank: int = 0, world: int = 1):
    config = parse(command.split()).config
    return make_batches(config, open_packed(config.data, sets), CPU, rank, world)


# the functions themselves -------------------------------------------------------------------------


def test_an_order_is_a_function_of_seed_and_epoch():
    first = order.permutation(1, 0, 1000)
    assert sorted(first) == list(range(1000)) and (order.permutation(1, 0, 1000) == first).all()
    for other in (order.permutation(1, 1, 1000), order.permutation(2, 0, 1000)):
        assert (other == first).sum() < 10  # chance: one


def test_the_order_is_the_same_on_every_machine_and_version():
    """Runs resume after an upgrade: these numbers must never change."""
    assert order.permutation(1, 0, 8).tolist() == [0, 7, 5, 3, 6, 4, 2, 1]
    assert order.key("dropout", 1, 17, 0, 1) == 909451362977883941
    assert order.uniforms(order.key("augment", 1, 0), np.arange(2), 1).tolist() == [
        [0.32982194565867595],
        [0.04599735933005289],
    ]


def test_no_two_things_of_a_run_share_a_key():
    keys = [order.key(purpose, 1, *numbers) for purpose in order.SALTS for numbers in np.ndindex(20, 20)]
    assert len(set(keys)) == len(keys)


def test_uniforms_are_of_the_sample_and_uniform():
    u = order.uniforms(order.key("augment", 1, 0), np.arange(10_000), 3)
    assert u.shape == (10_000, 3) and 0 <= u.min() and u.max() < 1
    assert abs(u.mean(0) - 0.5).max() < 0.02 and abs(np.corrcoef(u.T) - np.eye(3)).max() < 0.05
    some = np.array([77, 3, 9_999])
    assert (order.uniforms(order.key("augment", 1, 0), some, 3) == u[some]).all()


@pytest.mark.parametrize("world, accumulation", [(1, 1), (2, 1), (1, 4), (3, 2), (4, 3)])
def test_shares_tile_the_batch_and_each_rank_has_a_consecutive_part(world, accumulation):
    batch = 24
    parts = [
        [range(batch)[order.share(batch, world, accumulation, rank, micro)] for micro in range(accumulation)]
        for rank in range(world)
    ]
    assert [i for of_rank in parts for part in of_rank for i in part] == list(range(batch))
    assert {len(part) for of_rank in parts for part in of_rank} == {batch // world // accumulation}


# batches ------------------------------------------------------------------------------------------

AUGMENTED = "cifar10 --arch net --batch-size 24 --crop 4 --flip --cutmix 0.7"
STREAM = "wikitext2 --batch-size 24"


@pytest.mark.parametrize("command, axis", [(AUGMENTED, 0), (STREAM, 1), ("mnist --batch-size 24", 0)])
@pytest.mark.parametrize("world, accumulation", [(2, 1), (1, 3), (4, 2)])
def test_ranks_together_train_on_the_batch_of_one(sets, command, axis, world, accumulation):
    """Samples, augmentation, labels, CutMix partners and shares."""
    alone = make(sets, command)
    ranks = [make(sets, f"{command} --grad-accum-steps {accumulation}", rank, world) for rank in range(world)]
    for step in (0, 1, alone.steps_per_epoch - 1, alone.steps_per_epoch, 3 * alone.steps_per_epoch + 2):
        parts = [rank.batch(step, micro) for rank in ranks for micro in range(accumulation)]
        for whole, *pieces in zip(alone.batch(step, 0), *parts):
            assert torch.equal(whole, torch.cat(pieces, axis if whole.dim() > 1 else 0))


def test_a_batch_is_a_function_of_the_step(sets):
    """Not of the steps before it: a resumed run starts in the middle."""
    for command in (AUGMENTED, STREAM):
        straight, jumped = make(sets, command), make(sets, command)
        batches = [straight.batch(step, 0) for step in range(9)]
        for step in (8, 3, 5):
            assert all(map(torch.equal, jumped.batch(step, 0), batches[step]))


def test_an_epoch_shows_every_image_once_and_another_order_in_the_next(sets):
    task = make(sets, "mnist --batch-size 20")  # 96 images: 4 steps, 16 are left out
    assert task.steps_per_epoch == TRAIN // 20
    seen = []
    for epoch in range(2):
        task.start_epoch(epoch)
        seen.append(task.ids[:80].tolist())
        assert len(set(seen[-1])) == 80
    assert seen[0] != seen[1]


def test_augmentation_is_of_seed_epoch_and_sample(sets):
    """The same image has the same shift and mirroring at any batch size, and another in the next epoch."""

    def pictures(batch: int, seed: int, epoch: int) -> dict:
        task = make(sets, f"cifar10 --crop 4 --flip --batch-size {batch} --seed {seed}")
        task.start_epoch(epoch)
        return dict(zip(task.ids.tolist(), task.augmented(slice(0, TRAIN))))

    def differing(a: dict, b: dict) -> int:
        return sum(not torch.equal(a[i], b[i]) for i in range(TRAIN))

    first = pictures(8, 1, 0)
    assert differing(pictures(12, 1, 0), first) == 0
    assert (
        differing(pictures(8, 1, 1), first) > 0.9 * TRAIN
        and differing(pictures(8, 2, 0), first) > 0.9 * TRAIN
    )


def test_augmentation_shifts_and_mirrors(sets):
    """Against numpy, image by image."""
    task = make(sets, "cifar10 --batch-size 8 --crop 3 --flip")
    task.start_epoch(0)
    originals = task.data.inputs.numpy()
    mirrored = 0
    for row in range(TRAIN):
        (dy, dx), flip = task.offsets[row].tolist(), bool(task.flips[row])
        image = originals[task.ids[row]][:, ::-1] if flip else originals[task.ids[row]]
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
        mirrored += flip
        assert np.array_equal(
            task.augmented(slice(row, row + 1))[0], padded[3 + dy : 35 + dy, 3 + dx : 35 + dx]
        )
    assert TRAIN / 4 < mirrored < 3 * TRAIN / 4
    assert {*task.offsets.flatten().tolist()} == set(range(-3, 4))


def test_a_device_augments_as_the_cpu_does():
    """By index on a device, by slices on a CPU, to shifts that leave nothing of the image."""
    random = torch.Generator().manual_seed(0)
    for height, width, channels in ((5, 5, 1), (4, 7, 3)):
        images = torch.randint(0, 256, (9, height, width, channels), generator=random, dtype=torch.uint8)
        ids = torch.randint(0, 9, (200,), generator=random)
        offsets = torch.randint(-4, 5, (200, 2), generator=random)
        flips = torch.rand(200, generator=random) < 0.5
        made = image_batches.sliced(images, ids, offsets, flips)
        assert torch.equal(made, image_batches.gathered(images, ids, offsets, flips))


def test_cutmix_partners_are_by_seed_step_and_position(sets):
    task = make(sets, "cifar10 --batch-size 24 --crop 0 --no-flip --cutmix 0.7")
    positions = np.arange(24)
    partners, mask = task.patches(5, positions, (32, 32))
    assert (partners != positions).all() and sorted(partners) == list(range(24))
    some_partners, some_mask = task.patches(5, positions[7:9], (32, 32))
    assert (some_partners == partners[7:9]).all() and (some_mask == mask[7:9]).all()
    assert (task.patches(6, positions, (32, 32))[1] != mask).any()


def test_cutmix_labels_are_shared_by_area(sets):
    task = make(sets, "cifar10 --batch-size 24 --crop 0 --no-flip --cutmix 0.7")
    x, labels, others, share = task.batch(0, 0)
    partners, mask = task.patches(0, np.arange(24), (32, 32))
    plain = task.data.normalise(task.augmented(slice(0, 24)))
    for i in range(24):
        patch = torch.from_numpy(mask[i])
        assert torch.equal(x[i], torch.where(patch, plain[partners[i]], plain[i]))
        assert share[i].item() == pytest.approx(1 - mask[i].mean()) and others[i] == labels[partners[i]]
    assert 0.4 < (share < 1).float().mean() < 0.95  # 0.7 of the images, less those whose patch is empty


def test_text_is_read_in_columns_without_shuffling(sets):
    task = make(sets, "wikitext2 --batch-size 6 --bptt 7")
    tokens = np.asarray(open_packed("wikitext2", sets).tokens("train")).astype(int)
    length = len(tokens) // 6
    words, targets = (
        torch.cat(parts) for parts in zip(*(task.batch(step, 0) for step in range(task.steps_per_epoch)))
    )
    for column in range(6):
        stream = tokens[column * length : (column + 1) * length]
        assert (
            words[:, column].tolist() == stream[:-1].tolist()
            and targets[:, column].tolist() == stream[1:].tolist()
        )
    sizes, epoch = open_packed("wikitext2", sets).sizes, task.steps_per_epoch
    done = partial(task.task.samples_done, task.config, sizes)
    assert done(epoch) == words.numel()
    assert done(2) == 2 * 7 * 6 and done(epoch + 1) == words.numel() + 7 * 6


def test_text_with_context_sees_the_words_before(sets):
    task = make(sets, "wikitext2 --batch-size 6 --bptt 7 --context 10")
    tokens = np.asarray(open_packed("wikitext2", sets).tokens("train")).astype(int)
    length = len(tokens) // 6
    for step in range(task.steps_per_epoch + 1):
        words, targets = task.batch(step, 0)
        at = step % task.steps_per_epoch * 7
        for column in range(1, 6):  # before the first lies nothing: it sees the text's end
            first = column * length + at
            assert words[:, column].tolist() == tokens[first - 10 : first + len(targets)].tolist()
            assert targets[:, column].tolist() == tokens[first + 1 : first + 1 + len(targets)].tolist()
    assert (
        len(targets) == 7
        and task.batch(0, 0)[0][:10, 0].tolist() == tokens[6 * length - 10 : 6 * length].tolist()
    )


def test_alternating_flips_mirror_every_image_in_one_of_two_epochs(sets):
    batches = make(sets, "cifar10 -b 8 --flip-alternating --crop 0")
    flipped = []
    for epoch in range(4):
        batches.start_epoch(epoch)
        flipped.append(batches.flips[batches.ids.argsort()])
    assert torch.equal(flipped[0], ~flipped[1]) and torch.equal(flipped[0], flipped[2])
    assert torch.equal(flipped[1], flipped[3]) and 0 < flipped[0].sum() < len(flipped[0])


def test_the_first_epochs_are_of_half_the_size(sets):
    small, full = (make(sets, f"cifar10 -b 8 --crop 0 --half-size-epochs {n}") for n in (1, 0))
    per_epoch = small.steps_per_epoch
    for step, side in ((0, 16), (per_epoch - 1, 16), (per_epoch, 32)):
        x, labels = small.batch(step, 0)
        whole, same = full.batch(step, 0)
        assert x.shape[2:] == (side, side) and torch.equal(labels, same)
        wanted = whole.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)) if side == 16 else whole
        assert torch.allclose(x, wanted, atol=1e-6)
