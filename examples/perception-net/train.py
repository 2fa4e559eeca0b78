#!/usr/bin/python3
"""Trains the two versions of perception-net and writes everything that is checked in beside this script.

Needs Debian's python3-torch, python3-sklearn and python3-numpy; nothing else in the project does.
Seeds, split and thread count are fixed, so the same library versions give the same files.
"""
import json
import pathlib
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = pathlib.Path(__file__).resolve().parent
VERSIONS = {"v1": {"seed": 1, "width": 16, "epochs": 40}, "v2": {"seed": 2, "width": 24, "epochs": 60}}
SPLIT_SEED = 20  # one split for both versions: neither ever saw a held-out image
HELDOUT = 360
GOLDEN_CASES = (1, 8)  # batch sizes, taken from the training images
LEAST_ACCURACY = 0.97
TOLERANCE = "1e-4"


def network(width):
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * width, 64), nn.ReLU(), nn.Linear(64, 10))


def digits():
    data = load_digits()
    images = (data.images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    return train_test_split(images, data.target.astype(np.int64), test_size=HELDOUT,
                            random_state=SPLIT_SEED, stratify=data.target)


def shifted(batch):
    """Each image moved by up to one pixel: the only augmentation."""
    out = torch.zeros_like(batch)
    for i, (dy, dx) in enumerate(torch.randint(-1, 2, (len(batch), 2)).tolist()):
        moved = torch.roll(batch[i], (dy, dx), (1, 2))
        if dy:
            moved[:, 0 if dy > 0 else -1, :] = 0
        if dx:
            moved[:, :, 0 if dx > 0 else -1] = 0
        out[i] = moved
    return out


def train(images, labels, seed, width, epochs):
    torch.manual_seed(seed)
    model = network(width)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for at in range(0, len(order), 64):
            pick = order[at:at + 64]
            loss = torch.nn.functional.cross_entropy(model(shifted(images[pick])), labels[pick])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    return model.eval()


def logits_of(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def write_golden(folder, model, images):
    folder.mkdir(parents=True, exist_ok=True)
    cases, at = [], 0
    for i, size in enumerate(GOLDEN_CASES):
        batch = images[at:at + size]
        at += size
        np.save(folder / f"case{i}.input.npy", batch)
        np.save(folder / f"case{i}.logits.npy", logits_of(model, batch))
        cases.append({"inputs": {"input": f"case{i}.input.npy"}, "outputs": {"logits": f"case{i}.logits.npy"},
                      "rtol": TOLERANCE, "atol": TOLERANCE})
    (folder / "golden.json").write_text(json.dumps({"cases": cases}, indent=2) + "\n")


def export(model, path):
    torch.onnx.export(model, torch.zeros(1, 1, 8, 8), str(path), opset_version=13,
                      input_names=["input"], output_names=["logits"],
                      dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}})


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_x, held_x, train_y, held_y = digits()
    heldout = HERE / "heldout"
    heldout.mkdir(exist_ok=True)
    np.save(heldout / "images.npy", held_x)
    np.save(heldout / "labels.npy", held_y)
    for version, settings in VERSIONS.items():
        model = train(train_x, train_y, **settings)
        logits = logits_of(model, held_x)
        accuracy = float((logits.argmax(1) == held_y).mean())
        print(f"{version}: {accuracy:.2%} of {len(held_y)} held-out images right")
        if accuracy < LEAST_ACCURACY:
            sys.exit(f"{version} is below {LEAST_ACCURACY:.0%}; nothing written for it")
        folder = HERE / f"model_{version}"
        folder.mkdir(exist_ok=True)
        export(model, folder / "model.onnx")
        (folder / "labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
        write_golden(folder / "golden", model, train_x)
        np.save(heldout / f"logits_{version}.npy", logits)


if __name__ == "__main__":
    main()
