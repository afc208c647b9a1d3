"""Checks that each checkpoint still does what its record says.

The first test images of every evaluated run are evaluated again, with the same noise, and
compared with the recorded values: a checkpoint, a data set or code that does not belong
to the record shows. A CPU and a GPU draw other noise from the same seed. Between the two the
estimates are compared in the mean, within what the noise allows.
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

# What an evaluation was made from, beside what every reader of its record needs.
MADE_FROM = {"checkpoint_sha256": str, "binarization_seed": int, "seed": int, "device": str}
# Nats an image of 784 numbers: two precisions or devices differ less, two models far more. An
# image of more numbers is allowed more.
TOLERANCE = 0.2 / 784


def verify(params: Params, images: int) -> Iterator[str]:
    """Check all recorded runs, on `images` test images each; yields a line for each.

    Raises VlaeError naming the runs whose log-likelihoods differ by more than 0.2 nats an
    image (of colour images 0.78) in the mean of absolute differences, or, where the recorded
    evaluation drew its noise on another kind of device, in the mean by more than that and four
    standard errors; and those whose checkpoint is not the one recorded.
    """
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    wrong = []
    for run in params.runs.values():
        base = paths.evaluation(run.name)
        about, values = base.with_name(base.name + ".json"), base.with_name(base.name + ".npz")
        # The two are recorded together; one alone is nothing that can be checked.
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
            remark = f" (± {error:.4f}; the noise of {record['device']} is another)"
        verdict = "as recorded" if difference <= tolerance else "NOT as recorded"
        yield (
            f"{run.name}: {verdict}, mean difference {difference:.4f} nats{remark} "
            f"on {len(x)} images"
        )
        if not difference <= tolerance:
            wrong.append(run.name)
    if wrong:
        raise VlaeError(f"not as recorded: {', '.join(wrong)}; evaluate them again")
