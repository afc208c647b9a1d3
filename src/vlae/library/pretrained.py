"""A trained model: encoding, likelihood, decompression and samples, in a line of Python each."""

import math
import os
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from vlae.config.load import recorded_model
from vlae.data.batches import as_stored
from vlae.errors import VlaeError
from vlae.evaluation import sample as sampling
from vlae.evaluation.likelihood import estimates
from vlae.hardware import autocast, choose_device, choose_precision, set_arithmetic
from vlae.images import ImageKind, scaled
from vlae.library.images import KINDS, check_images
from vlae.library.project import find_project
from vlae.models.base import Model
from vlae.models.weights import read_model
from vlae.storage import paths
from vlae.storage.dvc_lock import md5 as content_md5
from vlae.storage.read import read_json
from vlae.storage.records import TRAINING, check_record
from vlae.storage.write import sha256


@dataclass(frozen=True)
class Encoding:
    """The posterior q(z|x) of each image: a Gaussian with `mean` and `log_std`, both (N,
    latent_dim). With an IAF posterior (section 3.2) this is the Gaussian that the flow transforms.
    """

    mean: Tensor
    log_std: Tensor


@dataclass(frozen=True)
class Pretrained:
    """A trained run: `model` is the PyTorch module, `record` its train.json, with the settings,
    seed, hardware and revision that it was trained with.

    Images go in and come out as `vlae.test_images` returns them: uint8 (N, 28, 28) of 0 and 1, or
    (N, 3, 32, 32) of 0 to 255. Every method raises ValueError for other images. The same seed
    gives the same codes and images. No method computes gradients; docs/extending.md fine-tunes a
    model.
    """

    name: str
    model: Model
    record: dict
    precision: str

    @property
    def kind(self) -> ImageKind:
        """The kind of its images."""
        return KINDS[self.model.kind]

    @cached_property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode(self, images: Tensor) -> Encoding:
        """Images -> q(z|x), nats as unit of log_std. ValueError for a model without a code."""
        self._needs_code()
        with autocast(self.device, self.precision):
            posterior = self.model.encode(self._input(images))
        return Encoding(posterior.mean, posterior.log_std)

    def log_likelihood(
        self, images: Tensor, samples: int = 64, seed: int = 0, standard_error: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """log p(x) of each image, nats (N,), by importance sampling (section 4.1); exact for a
        model without a code.

        The estimate is a lower bound in expectation, and rises with `samples`. The noise of an
        image depends on `seed` and on its place in `images`: give each batch of a loop a seed of
        its own. With `standard_error` a second tensor (N,) has the standard error over the
        samples, by the delta method. Few effective samples make it too small.
        """
        samples = _at_least_one("samples", samples)
        x = self._input(images)
        found = estimates(self.model, x, range(len(x)), samples, seed, self.precision)
        value = torch.from_numpy(found["log_likelihood"])
        if not standard_error:
            return value
        # The relative variance of the mean weight: 1/ESS - 1/K, with Bessel's correction.
        spread = (1 / torch.from_numpy(found["ess"]) - 1 / samples).clamp(min=0)
        error = (spread * samples / (samples - 1)).sqrt() if samples > 1 else spread + math.nan
        return value, error if self.model.latent_dim else torch.zeros_like(value)

    def sample_posterior(self, images: Tensor, seed: int = 0) -> Tensor:
        """Draw a code z ~ q(z|x) for each image, (N, latent_dim), after the IAF if there is one.
        ValueError for a model without a code."""
        self._needs_code()
        return sampling.posterior_codes(self.model, self._input(images), seed)

    def sample_prior(self, count: int, seed: int = 0) -> Tensor:
        """Draw `count` codes z ~ p(z), (count, latent_dim), as `sample` does. ValueError for a
        model without a code."""
        self._needs_code()
        return sampling.prior_codes(self.model, _at_least_one("count", count), seed, self.device)

    def decode(self, codes: Tensor, seed: int = 0) -> Tensor:
        """Draw an image from p(x|z) for each code, from `sample_posterior`, `sample_prior` or your
        own, floating-point (N, latent_dim). ValueError for other codes and a model without."""
        self._needs_code()
        z = torch.as_tensor(codes)
        if z.ndim != 2 or z.shape[1] != self.model.latent_dim or not z.is_floating_point():
            wanted = f"floating-point (N, {self.model.latent_dim})"
            raise ValueError(f"codes must be {wanted}, not {z.dtype} {tuple(z.shape)}")
        if not len(z) or not z.isfinite().all():
            raise ValueError("codes must be finite numbers, of one image or more")
        return self._output(sampling.decode(self.model, z.to(self.device).float(), seed))

    def decompress(self, images: Tensor, seed: int = 0) -> Tensor:
        """Encode, draw a code, and draw images from it: what the code keeps of `images` (figures 1
        to 3). The same as `decode(sample_posterior(images, seed), seed)`. ValueError for a model
        without a code."""
        self._needs_code()
        return self._output(sampling.decompress(self.model, self._input(images), seed))

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Draw `count` images from the model."""
        count = _at_least_one("count", count)
        return self._output(sampling.draw_samples(self.model, count, seed, self.device))

    def _input(self, images: Tensor) -> Tensor:
        x = check_images(images, self.kind).to(self.device)
        return x.float().unsqueeze(1) if self.kind.largest == 1 else scaled(x)

    @staticmethod
    def _output(x: Tensor) -> Tensor:
        return as_stored(x).cpu()

    def _needs_code(self) -> None:
        if not self.model.latent_dim:
            raise ValueError(f"{self.name} is a decoder without a code")


def _at_least_one(name: str, value: int) -> int:
    """Return the integer. Raises ValueError unless it is one, of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, is {value!r}")
    return int(value)


def load(
    run: str,
    folder: str | os.PathLike | None = None,
    *,
    home: str | os.PathLike | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Pretrained:
    """Load the trained model of a run, from `folder`, which has its model.safetensors and
    train.json, or from the project `home` (vlae.library.project says where that is looked for).

    device: auto, cpu, cuda or cuda:N. precision: auto (bfloat16 where the hardware multiplies
    it), float32 or bfloat16.
    Raises VlaeError for a run that is unknown or not trained, and for weights that are not
    those that its record describes.
    """
    weights, about, md5 = _files(run, folder, home)
    record = check_record(about, read_json(about), {"run": run}, TRAINING | {"config": dict})
    _check_weights(weights, record.get("checkpoint_sha256"), md5)
    on = choose_device(device)
    precision = choose_precision(precision, on)
    set_arithmetic(on, precision)
    model = read_model(run, recorded_model(record["config"], str(about)), weights)
    return Pretrained(run, model.to(on).eval(), record, precision)


def _files(
    run: str, folder: str | os.PathLike | None, home: str | os.PathLike | None
) -> tuple[Path, Path, str | None]:
    """The weights and the record of a run, and the MD5 that DVC has recorded of the weights."""
    if folder is not None:
        weights, about = Path(folder, paths.MODEL), Path(folder, paths.RECORD)
        for path in (weights, about):
            if not path.exists():
                raise VlaeError(f"{path} is missing: a model is {paths.MODEL} and {paths.RECORD}")
        return weights, about, None
    project, place = find_project(home), paths.checkpoint(run)
    project.params.run(run)
    trained_by_hand = (project.root / place / paths.MODEL).exists()
    if project.recorded_md5(place / paths.MODEL) is None and not trained_by_hand:
        raise VlaeError(
            f"{run} is not trained in {project.root}; `vlae list` shows which runs are"
        )
    weights, about = (project.file(place / name) for name in (paths.MODEL, paths.RECORD))
    return weights, about, project.recorded_md5(place / paths.MODEL)


def _check_weights(path: Path, sha256_in_record: str | None, md5: str | None) -> None:
    """Compare weights with the SHA-256 in their record; older records have none, and dvc.lock
    vouches for their weights by an MD5."""
    if sha256_in_record is not None:
        right = sha256(path) == sha256_in_record
    else:
        right = md5 is not None and content_md5(path) == md5
    if not right:
        raise VlaeError(f"{path} is not the checkpoint that its {paths.RECORD} describes")
