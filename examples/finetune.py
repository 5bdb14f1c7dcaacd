"""Fine-tuning: torchvision's ResNet-18 on one's own photographs, from weights that ImageNet trained.

    relaunch prep flowers --source my_images --size 224 --val-fraction 0.2
    relaunch train ./examples/finetune.py --data flowers --init resnet18-f37072fd.pth --init-head fresh

The weights are https://download.pytorch.org/models/resnet18-f37072fd.pth. `--freeze 'layer[12].*'` leaves the
first layers as they are, `--lr-scale 'layer*=0.1'` lets them move less than the new head.
"""

from __future__ import annotations

from relaunch.trainers.tasks.images import ImageOptions, ImageTask
from relaunch.trainers.workloads import Workload


def model(config, sizes):
    import torchvision

    return getattr(torchvision.models, config.arch)(num_classes=sizes.outputs)


WORKLOAD = Workload(
    name="finetune",
    about="torchvision's ResNets, for fine-tuning on RGB photographs",
    task=ImageTask(),
    data="flowers",
    archs=("resnet18", "resnet34", "resnet50"),
    options=ImageOptions,
    model=model,
    # a tenth of the rate of a training from scratch, and few epochs: what is there already is to stay;
    # a mirrored photograph is a photograph
    defaults=dict(
        epochs=5, batch_size=32, optimizer="sgd", lr=0.005, schedule="cosine", weight_decay=1e-4, flip=True
    ),
)
