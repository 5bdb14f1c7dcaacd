"""scikit-learn's handwritten digits: 1,797 real 8x8 scans, enlarged to MNIST's 28x28. No download.

    relaunch prep digits

The test set of UCI's "Optical Recognition of Handwritten Digits", as sklearn.datasets.load_digits gives it.
Every fifth sample of each digit is test (360).
"""

import numpy as np

TITLE = "scikit-learn's digits"


def scans() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 [N,8,8] white on black, their digits int64 [N], and which of them are test, bool [N]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 17 grey levels, 16 is ink: white on black, as in MNIST
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    test = np.zeros(len(pixels), bool)
    test[np.argsort(digits.target, kind="stable")[::5]] = True
    return pixels, digits.target, test


def enlarged(scan: np.ndarray) -> np.ndarray:
    """uint8 [28,28] of one scan."""
    from PIL import Image

    return np.asarray(Image.fromarray(scan).resize((28, 28), Image.Resampling.BICUBIC))


def pack(writer) -> dict:
    """1,437 train and 360 test images, uint8 [N,28,28,1]; returns the source for meta.json."""
    from sklearn import __version__

    pixels, labels, test = scans()
    large = np.stack([enlarged(scan) for scan in pixels])
    writer.classes = [str(digit) for digit in range(10)]
    for split, chosen in {"train": ~test, "test": test}.items():
        images = large[chosen][..., None]
        writer.images(split, labels[chosen], (28, 28, 1), [(range(len(images)), images)])
    return {"package": f"scikit-learn {__version__}"}
