"""The C++ core against PyTorch's operations: the same functions, gradients and steps."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from miniature import small_params
from vlae.config.load import load_params
from vlae.hardware import autocast, choose_precision
from vlae.images import FIXED
from vlae.models.objective import objective
from vlae.models.vlae import VLAE
from vlae.native import library as core_library
from vlae.native import network
from vlae.native.library import backend, library, unavailable_reason
from vlae.native.optimizer import adamax_and_average
from vlae.nn.pixelcnn import PixelCNN
from vlae.nn.weightnorm import Linear, data_dependent_initialisation

CPU = torch.device("cpu")
needs_core = pytest.mark.skipif(
    bool(unavailable_reason()), reason=f"no C++ core here: {unavailable_reason()}"
)
# How far from the truth a result may be, relative to its size: a few roundings.
CLOSE = {"bfloat16": 0.01, "float32": 1e-5}
RUNS = (
    "static_mnist-vlae",
    "static_mnist-vlae_iaf_relu",
    "static_mnist-vlae_factorized",
    "static_mnist-vae_iaf",
    "static_mnist-window_a",
    "static_mnist-window_a_untied",
    "dynamic_mnist-pixelcnn",
)


def images(count: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(count)
    coarse = torch.rand((count, 1, 7, 7), generator=random)
    return (F.interpolate(coarse, (28, 28), mode="bilinear") > 0.5).float()


def ready(model: torch.nn.Module, *inputs) -> torch.nn.Module:
    """Initialised on `inputs`, and then moved a little, as if trained."""
    with data_dependent_initialisation(model):
        model(*inputs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * parameter.abs().mean())
    return model


def gradients(model, x, noise, dtype, precision):
    """(loss, gradient of each parameter) of the free-bits bound."""
    model = copy.deepcopy(model).to(dtype)
    with autocast(CPU, precision):
        loss, _ = objective(model, x.to(dtype), None if noise is None else noise.to(dtype), 0.5)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


def error(values, truth):
    """Of each of the values, relative to the size of the truth's."""
    return [
        ((v.double() - t).norm() / t.norm().clamp(min=1e-12)).item()
        for v, t in zip(values, truth, strict=True)
    ]


@pytest.mark.parametrize("name", RUNS)
def test_gradients_are_as_close_to_double_precision_as_pytorch_s(name, without_core, mode):
    """Over some models: of a single one, rounding to bfloat16 makes a bias's gradient off by a
    quarter now and then, be it ours or PyTorch's."""
    run = load_params().run(name)
    theirs, ours = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        x = images(12)
        noise = torch.randn(12, run.model.latent_dim) if run.model.latent_dim else None
        model = VLAE(run.model)
        with data_dependent_initialisation(model):
            objective(model, x, noise, 0.5)
        truth = gradients(model, x, noise, torch.float64, "float32")
        without = without_core(gradients, model, x, noise, torch.float32, mode.precision)
        with_core = gradients(model, x, noise, torch.float32, mode.precision)
        assert any(not torch.equal(a, b) for a, b in zip(with_core, without, strict=True))
        theirs.append(error(without, truth))
        ours.append(error(with_core, truth))
    ours, theirs = torch.tensor(ours).square().mean(0), torch.tensor(theirs).square().mean(0)
    names = ["loss", *(n for n, _ in model.named_parameters())]
    for name, mine, pytorch in zip(names, ours.sqrt(), theirs.sqrt(), strict=True):
        assert mine < 2 * pytorch + CLOSE[mode.precision], name
    single = mode.precision == "float32"
    assert ours.sum().sqrt() < (2 if single else 1.2) * theirs.sum().sqrt()


@pytest.mark.parametrize("filters", [4, 12, 16, 20])
@pytest.mark.parametrize("maps", [0, 3])
@pytest.mark.parametrize(
    ("kernel", "masked", "pointwise", "last_masked"),
    [(7, 2, 3, False), (3, 1, 0, False), (9, 0, 1, False), (3, 2, 1, True)],
)
def test_pixelcnn_of_any_size(
    filters, maps, kernel, masked, pointwise, last_masked, without_core, mode
):
    torch.manual_seed(1)
    x, z = images(3), torch.randn(3, maps, 28, 28) if maps else None
    model = PixelCNN(maps, filters, kernel, masked, pointwise, False, last_masked)
    model = ready(model.to(memory_format=torch.channels_last), x, z)
    inputs = x if z is None else torch.cat([x, z], 1)
    with torch.no_grad(), autocast(CPU, mode.precision):
        core = network.core_of(model, x)
        logits = core(inputs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        ours = core.log_likelihood(inputs.permute(0, 2, 3, 1), x.squeeze(1))
    truth = model.double()(x.double(), None if z is None else z.double())
    assert (logits - truth).abs().max() < 3 * CLOSE[mode.precision] * truth.abs().max()
    of_logits = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(ours, of_logits, rtol=1e-5, atol=1e-3)


def test_a_kernel_too_wide_for_the_core_is_left_to_pytorch(mode):
    model = PixelCNN(0, 4, 11, 1, 0, tied=True).to(memory_format=torch.channels_last)
    with autocast(CPU, mode.precision):
        assert network.core_of(model, images(1)) is None


def test_no_logit_sees_its_pixel_or_a_later_one(mode):
    """Bit by bit: flipping pixel i changes logits behind it only, and some of those."""
    torch.manual_seed(2)
    x = images(2)
    model = PixelCNN(0, 12, 7, 6, 4, tied=True).to(memory_format=torch.channels_last)
    ready(model, x)
    with torch.no_grad(), autocast(CPU, mode.precision):
        core = network.core_of(model, x)
        before = core(x.permute(0, 2, 3, 1)).flatten(1)
        for pixel in (0, 27, 28, 400, 783):
            flipped = x.flatten(1).clone()
            flipped[:, pixel] = 1 - flipped[:, pixel]
            after = core(flipped.view(-1, 28, 28, 1)).flatten(1)
            same = (after == before).all(0)
            assert same[: pixel + 1].all(), pixel
            assert pixel == 783 or not same[pixel + 1 :].all()


def test_results_do_not_depend_on_the_number_of_threads(mode):
    run = load_params().run("static_mnist-vlae")
    torch.manual_seed(3)
    x, noise = images(20), torch.randn(20, 64)
    model = VLAE(run.model)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            core_in = x.permute(0, 2, 3, 1).requires_grad_()
            with autocast(CPU, mode.precision):
                features = network.core_of(model.encoder, x)(core_in)
                maps = model.trunk(noise.detach())
            (features.square().sum() + maps.square().sum()).backward()
            grads = [p.grad for p in model.encoder.blocks.parameters()]
            results.append([features.detach(), maps.detach(), *grads, core_in.grad])
            model.zero_grad(set_to_none=True)
    finally:
        torch.set_num_threads(threads)
    convolutional = slice(2, None)
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(results[0][convolutional], results[1][convolutional], strict=True):
        assert torch.equal(a, b)


def test_a_weighted_sum_of_log_likelihoods_has_its_own_gradient(mode):
    """The gradient taken ahead is that of a mean; another weighting is computed anew."""
    torch.manual_seed(4)
    x, maps = images(5), torch.randn(5, 28, 28, 2)
    model = PixelCNN(2, 8, 7, 1, 1, tied=True).to(memory_format=torch.channels_last)
    inputs = torch.cat([x.permute(0, 2, 3, 1), maps], 3)
    weights = torch.tensor([1.0, 0.0, -2.0, 0.5, 3.0])

    def gradient(of) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        leaf = inputs.clone().requires_grad_()
        with autocast(CPU, mode.precision):
            value = network.core_of(model, x).log_likelihood(leaf, x.squeeze(1))
        of(value).backward()
        return [leaf.grad, *(p.grad for p in model.parameters())]

    weighted = gradient(lambda value: (weights * value).sum())
    single = [gradient(lambda value, i=i: value[i]) for i in range(5)]
    for k, ours in enumerate(weighted):
        expected = sum(w * g[k] for w, g in zip(weights, single, strict=True))
        close = 2 * CLOSE[mode.precision]
        torch.testing.assert_close(ours, expected, rtol=close, atol=close * expected.abs().max())


def test_a_second_gradient_of_the_same_features_is_refused(mode):
    model = ready(VLAE(load_params().run("static_mnist-vlae").model).encoder, images(2))
    with autocast(CPU, mode.precision):
        value = model(images(2)).sum()
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        value.backward()


def test_folded_weights_are_the_normalised_ones(mode):
    torch.manual_seed(5)
    for mask in (None, (torch.rand(30, 50) > 0.3).float()):
        layer = Linear(50, 30, mask)
        with torch.no_grad():
            layer.gain.uniform_(0.5, 2)
        upstream = torch.randn(30, 50).bfloat16()
        with autocast(CPU, mode.precision):
            ours = layer.weight()
        assert ours.dtype == mode.features
        ours.backward(upstream.to(ours.dtype))
        grads = layer.direction.grad, layer.gain.grad
        layer.zero_grad(set_to_none=True)
        reference = layer.weight()
        reference.backward(upstream.float())
        if mode.precision == "bfloat16":
            assert torch.equal(ours, reference.bfloat16())
        else:
            torch.testing.assert_close(ours, reference)
        torch.testing.assert_close(grads[0], layer.direction.grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grads[1], layer.gain.grad, rtol=1e-4, atol=1e-4)


def test_steps_are_those_of_torch_adamax(mode):
    torch.manual_seed(6)
    shapes = [(40, 30), (7,), (5, 3, 2, 3)]
    start = [torch.randn(shape) for shape in shapes]
    start[2] = start[2].to(memory_format=torch.channels_last)

    def trained(native: bool):
        weights = [torch.nn.Parameter(w.clone()) for w in start]
        average = [w.detach().clone() for w in weights]
        optimizer = torch.optim.Adamax(weights, lr=0.01, betas=(0.9, 0.99))
        random = torch.Generator().manual_seed(0)
        for _ in range(20):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=random)
            if native:
                adamax_and_average(optimizer, average, 0.98)
            else:
                optimizer.step()
                for mean, weight in zip(average, weights, strict=True):
                    mean.mul_(0.98).add_(weight.detach(), alpha=0.02)
        moments = [optimizer.state[w][k] for w in weights for k in ("exp_avg", "exp_inf")]
        return [w.detach() for w in weights] + average + moments

    for ours, theirs in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_core_trains_like_pytorch(tmp_path, without_core, monkeypatch, mode):
    """The same steps from the same start: two curves that differ by rounding only."""
    from vlae.models.base import latent_noise
    from vlae.training.step import training_step
    from vlae.training.train_state import new_train_state

    run = small_params(tmp_path, {"free_bits": 0.0}).run("static_mnist-vlae")
    data = images(64).squeeze(1).to(torch.uint8)

    def curve() -> torch.Tensor:
        state = new_train_state(run, data, FIXED, CPU)
        losses = []
        for step in range(60):
            random = torch.Generator().manual_seed(step)
            x = data[step * 8 % 64 :][:8].unsqueeze(1).float()
            noise = latent_noise(run.model.latent_dim, x, random)
            losses.append(training_step(state, x, noise, mode.precision)[0])
        return torch.stack(losses)

    ours = curve()
    monkeypatch.setattr("vlae.training.optimizer.backend", lambda *_: "PyTorch")
    theirs = without_core(curve)
    assert ours[-8:].mean() < 0.6 * ours[:8].mean()
    assert ((ours - theirs).abs() < 2 * CLOSE[mode.precision] * theirs).all()


# ---- where there is no core ----


def in_a_process(code: str, **environment: str) -> str:
    source = Path(__file__).resolve().parents[2] / "src"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(source), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


SAY = (
    "from vlae.native.library import backend, mode, unavailable_reason;"
    "print(backend('cpu', mode().precision), unavailable_reason())"
)


def test_the_core_computes_in_its_precision_and_inside_of_a_forward_pass_only(mode):
    name = "C++ (AVX2)" if mode.precision == "float32" else ("C++ (AMX)", "C++ (AVX-512)")
    assert backend("cpu", mode.precision) in name
    assert choose_precision("auto", CPU) == mode.precision
    x = torch.zeros(1)
    assert not network.active(x)
    for precision in ("float32", "bfloat16"):
        with autocast(CPU, precision):
            assert network.active(x) == (precision == mode.precision)
            assert not network.active(x.double())
    assert not network.active(x)


@pytest.mark.parametrize(
    ("flags", "expected", "reason"),
    [
        ("avx2 fma", "AVX2", None),
        ("avx2", "AVX2", "fma"),
        ("sse2", "AVX2", "fma"),
        ("avx2 fma avx512f", "AVX-512", "avx512_bf16"),
        ("avx2 fma avx512f avx512bw avx512vl avx512dq avx512_bf16", "AVX-512", None),
    ],
)
def test_the_mode_is_that_of_the_processor(flags, expected, reason, monkeypatch):
    monkeypatch.setattr(core_library, "processor_flags", lambda: frozenset(flags.split()))
    monkeypatch.delenv("VLAE_NATIVE", raising=False)
    monkeypatch.setattr(core_library, "_compiler", lambda: "")
    instructions = core_library.instructions.__wrapped__()
    monkeypatch.setattr(core_library, "instructions", lambda: instructions)
    said = core_library.unavailable_reason.__wrapped__()
    assert instructions == expected
    assert said == (f"the processor lacks {reason}" if reason else "no C++ compiler")


def test_without_a_core_pytorch_does_the_work():
    other = {"bfloat16": "float32", "float32": "bfloat16"}[core_library.mode().precision]
    assert backend("cpu", other) == "PyTorch"
    assert backend("cuda", "bfloat16") == "PyTorch"
    assert in_a_process(SAY, VLAE_NATIVE="0") == "PyTorch switched off by VLAE_NATIVE=0"


@needs_core
def test_without_a_compiler_pytorch_does_the_work(tmp_path):
    nothing = str(tmp_path)
    assert in_a_process(SAY, PATH=nothing, CXX="none", XDG_CACHE_HOME=nothing) == (
        "PyTorch no C++ compiler"
    )
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o755)
    said = in_a_process(SAY, CXX=str(broken), XDG_CACHE_HOME=nothing)
    assert said == "PyTorch the compiler failed: no such flag"
    assert list(tmp_path.glob("vlae/*")) == []  # nothing half-built
    occupied = tmp_path / "file"
    occupied.write_text("")
    elsewhere = f"import os; os.environ['XDG_CACHE_HOME'] = {str(occupied)!r};"
    said = in_a_process(elsewhere + SAY)
    assert said.startswith("PyTorch it could not be built: ") and str(occupied) in said


@needs_core
@pytest.mark.skipif(not library() or not library().vlae_has_tiles(), reason="no AMX tiles here")
def test_without_tiles_the_core_computes_the_same(tmp_path):
    code = f"""
import torch
from vlae.hardware import autocast, choose_precision
from vlae.native import network
from vlae.nn.pixelcnn import PixelCNN
torch.manual_seed(0)
torch.set_num_threads(1)
model = PixelCNN(2, 12, 7, 2, 1, tied=True).to(memory_format=torch.channels_last)
x = torch.rand(3, 28, 28, 3, requires_grad=True)
with autocast(torch.device("cpu"), "bfloat16"):
    value = network.core_of(model, x).log_likelihood(x, (x[..., 0] > 0.5).float())
value.sum().backward()
grads = torch.cat([p.grad.flatten() for p in model.parameters()])
torch.save([value.detach(), x.grad, grads], r"{tmp_path}/" + __import__("sys").argv[1])
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    for name, environment in (("tiles", {}), ("vectors", {"VLAE_NO_AMX": "1"})):
        in_a_process(
            f"import sys, runpy; sys.argv = ['', '{name}']; runpy.run_path(r'{script}')",
            **environment,
        )
    tiles, vectors = (torch.load(tmp_path / name) for name in ("tiles", "vectors"))
    for a, b in zip(tiles, vectors, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.01 * b.abs().max().item())


@needs_core
def test_the_core_is_built_once():
    built = core_library._built()
    before = built.stat().st_mtime_ns
    assert in_a_process("from vlae.native.library import library; library()") == ""
    assert built.stat().st_mtime_ns == before
