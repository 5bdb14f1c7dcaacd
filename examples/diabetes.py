"""A regression on a table: how far diabetes gets in a year, from ten measurements (Efron et al., 2004).

    python examples/diabetes.py                                        writes diabetes.npz
    relaunch prep diabetes --source diabetes.npz --val-fraction 0.2
    relaunch train ./examples/diabetes.py --run mlp
    relaunch train ./examples/diabetes.py --arch linear --run linear
    relaunch diff mlp linear

Inputs and targets are normalised with the training set's mean and deviation; mae and the predictions are in
the target's own unit, and a loss of 1 is that of guessing the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from relaunch.trainers.tasks.regression import RegressionTask
from relaunch.trainers.workloads import Workload, setting


@dataclass(frozen=True, kw_only=True)
class Options:
    hidden: int = setting(32, "hidden units of the mlp", least=1)


def model(config, sizes):
    from torch import nn

    (features,), hidden = sizes.shape, config.options.hidden
    if config.arch == "linear":
        return nn.Linear(features, sizes.outputs)
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, sizes.outputs))


WORKLOAD = Workload(
    name="diabetes",
    about="a small network on scikit-learn's diabetes table",
    task=RegressionTask(),
    data="diabetes",
    archs=("mlp", "linear"),
    options=Options,
    model=model,
    # 354 patients are 11 steps of 32, and few: twenty epochs at a rate that falls, and a decay a hundred
    # times the usual, reach on validation what a linear model does (R2 0.33 to 0.37)
    defaults=dict(
        epochs=20,
        batch_size=32,
        optimizer="adamw",
        lr=3e-3,
        schedule="cosine",
        weight_decay=1.0,
    ),
)


if __name__ == "__main__":
    import numpy as np
    from sklearn.datasets import load_diabetes

    inputs, progress = load_diabetes(return_X_y=True, scaled=False)
    np.savez("diabetes.npz", inputs=inputs, labels=progress)
