"""Checks that each checkpoint still gives the recorded likelihoods.

The first test images of every evaluated run are evaluated again with the same noise. A difference
shows that the checkpoint, the data set or the code does not belong to the record. A CPU and a GPU
draw different noise from the same seed. Between them only the means are compared, with a tolerance
for the noise.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from vlae.config.schema import Params
from vlae.data.recorded import load_recorded
from vlae.errors import VlaeError
from vlae.evaluation.evaluate import test_input
from vlae.evaluation.likelihood import estimates
from vlae.hardware import choose_device, choose_precision
from vlae.models.weights import load_model
from vlae.storage import paths
from vlae.storage.records import read_evaluation, read_per_image
from vlae.storage.write import sha256

# Keys of a record that only this check needs.
MADE_FROM = {"checkpoint_sha256": str, "binarization_seed": int, "seed": int, "device": str}
# Nats per dimension, 0.2 for an image of 784 pixels. Two precisions or devices differ by less, two
# models by far more.
TOLERANCE = 0.2 / 784


def verify(params: Params, images: int) -> Iterator[str]:
    """Check all recorded runs on `images` test images each; yield one line for each run.

    A run fails if its checkpoint is not the recorded one, or if the mean absolute difference of
    log-likelihoods exceeds 0.2 nats per image (colour images: 0.78). If the record is from another
    kind of device, the absolute mean difference may exceed that by four standard errors.

    Raises VlaeError with the names of all runs that fail.
    """
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    wrong = []
    for run in params.runs.values():
        base = paths.evaluation(run.name)
        about, values = base.with_name(base.name + ".json"), base.with_name(base.name + ".npz")
        # The two files are recorded together; one alone cannot be checked.
        record = read_evaluation(Path(), run.name, run.dataset) if values.exists() else None
        if record is None:
            yield f"{run.name}: not evaluated"
            continue
        for key, kind in MADE_FROM.items():
            if type(record.get(key)) is not kind:
                raise VlaeError(f"{about}: {key!r} must be {kind.__name__}")
        checkpoint = paths.model(run.name)
        model = load_model(run, device)
        if sha256(checkpoint) != record["checkpoint_sha256"]:
            yield f"{run.name}: {checkpoint} is not the checkpoint that was evaluated"
            wrong.append(run.name)
            continue
        dataset = load_recorded(run.dataset, params.dataset(run.dataset))
        x = test_input(dataset, run.evaluation, record["binarization_seed"])[:images]
        samples, seed = record["importance_samples"], record["seed"]
        again = estimates(model, x.to(device), range(len(x)), samples, seed, precision)
        images_of = read_per_image(Path(), record)
        recorded = torch.from_numpy(images_of["log_likelihood"][: len(x)]).double()
        differences = torch.from_numpy(again["log_likelihood"]) - recorded
        tolerance, remark = TOLERANCE * x[0].numel(), ""
        if record["device"] == device.type:
            difference = differences.abs().mean().item()
        else:
            difference = abs(differences.mean().item())
            error = differences.std().item() / len(x) ** 0.5
            tolerance += 4 * error
            remark = f" (± {error:.4f}; noise differs from that of {record['device']})"
        verdict = "as recorded" if difference <= tolerance else "NOT as recorded"
        yield (
            f"{run.name}: {verdict}, mean difference {difference:.4f} nats{remark} "
            f"on {len(x)} images"
        )
        if not difference <= tolerance:
            wrong.append(run.name)
    if wrong:
        raise VlaeError(f"not as recorded: {', '.join(wrong)}; evaluate them again")
