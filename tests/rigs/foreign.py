"""Weights as somebody else saved them, by pytorch/examples' imagenet script."""

import dataclasses

import torch
from torchvision import transforms

from relaunch.data_prep.packed import open_packed
from relaunch.trainers.build import make_model
from relaunch.trainers.config import parse
from rigs.sets import pictures

IMAGENET = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # as main.py writes it


def foreign(words: str, data, path="model.pth", outputs=None):
    """Random weights of a workload's model, as somebody saved them; the model in eval mode."""
    config, sizes = parse([*words.split(), "--data", str(data)]).config, open_packed(str(data), ".").sizes
    shape = (sizes.shape[0], 32, 32) if config.workload == "cifar10" else sizes.shape
    sizes = dataclasses.replace(sizes, shape=shape, outputs=outputs or sizes.outputs)
    model = make_model(config, sizes).eval()
    with torch.no_grad():
        for tensor in model.parameters():  # large enough that predictions differ
            if tensor.dim() > 1:
                tensor.mul_(1.2 if config.arch == "resnet18" else 2)
        seen = torch.from_numpy(pictures(24, (*shape[1:], shape[0]))).permute(0, 3, 1, 2) / 255
        list(model.parameters())[-1].sub_(model(IMAGENET(seen)).mean(0))  # no class is the likeliest of all
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return model
