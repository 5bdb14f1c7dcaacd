"""scikit-learn's handwritten digits: 1,797 real 8x8 scans, enlarged to MNIST's 28x28. No download.

    relaunch prep digits

The test set of UCI's "Optical Recognition of Handwritten Digits", as sklearn.datasets.load_digits gives it.
Every fifth sample of each digit is test (360).
"""

import numpy as np

TITLE = "scikit-learn's digits"


def pack(writer) -> dict:
    """1,437 train and 360 test images, uint8 [N,28,28,1]; returns the source for meta.json."""
    from PIL import Image
    from sklearn import __version__
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 17 grey levels, 16 is ink: white on black, as in MNIST
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    large = np.stack(
        [np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC)) for image in pixels]
    )
    writer.classes = [str(digit) for digit in range(10)]
    test = np.zeros(len(large), bool)
    test[np.argsort(digits.target, kind="stable")[::5]] = True
    for split, chosen in {"train": ~test, "test": test}.items():
        images = large[chosen][..., None]
        writer.images(split, digits.target[chosen], (28, 28, 1), [(range(len(images)), images)])
    return {"package": f"scikit-learn {__version__}"}
