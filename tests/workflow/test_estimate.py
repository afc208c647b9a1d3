"""How long a training will take: by recorded speeds alone, and by those of a like device."""

import copy

import pytest

from miniature import small_params
from scripts import script
from vlae.config.schema import as_dict

RUN = "static_mnist-vlae"
COLOUR = "cifar10-vlae_4x2"
estimates = script("estimate")


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    return small_params(tmp_path_factory.mktemp("params"))


def record(params, run: str, images_per_second: float, **changes) -> dict:
    """A train.json of ten epochs."""
    images = 1000 * 10
    return {
        "run": run,
        "dataset": params.runs[run].dataset,
        "epochs": 10,
        "images_seen": images,
        "seconds": images / images_per_second,
        "device": "cpu",
        "hardware": "1 core of A",
        "core": "C++ (AVX2)",
        "config": {
            "model": as_dict(params.runs[run].model),
            "training": as_dict(params.runs[run].training),
        },
    } | changes


def estimate(params, run: str, records: list[dict], epochs: int = 2, device: str = "cpu"):
    known = estimates.speeds(records, params, device)
    return estimates.estimate(params.runs[run], params, known, epochs, "B")


def images(params, run: str) -> int:
    splits = params.datasets[params.runs[run].dataset]["splits"]
    return splits["train"] + splits["valid"]


def test_the_speed_of_the_same_run_gives_the_time(params):
    found = estimate(params, RUN, [record(params, RUN, 500)])
    assert found.seconds == pytest.approx(2 * images(params, RUN) / 500)
    assert not found.at_least
    assert found.text(RUN) == "about 4 min at the speed of 1 core of A, C++ (AVX2)"


def test_the_model_that_differs_least_counts_and_is_named(params):
    others = [
        record(params, "static_mnist-vae_iaf", 1),
        record(params, "dynamic_mnist-vlae", 100),  # its decoder is not tied
        record(params, COLOUR, 7),
    ]
    found = estimate(params, RUN, others)
    assert found.speed_of.run == "dynamic_mnist-vlae"
    assert "at the speed of dynamic_mnist-vlae on 1 core of A" in found.text(RUN)


def test_of_equal_runs_the_one_on_this_processor_counts(params):
    here = record(params, RUN, 100, hardware="2 cores of B")
    assert estimate(params, RUN, [record(params, RUN, 1), here]).speed_of.hardware.endswith("B")


def test_a_smaller_network_gives_a_time_that_is_too_short_and_says_so(params):
    small = record(params, COLOUR, 50)
    small["config"] = copy.deepcopy(small["config"])
    model = small["config"]["model"]
    model |= {"widths": [width // 2 for width in model["widths"]], "maps": model["maps"] // 2}
    found = estimate(params, COLOUR, [small | {"run": "cifar10-narrow_4x2"}], epochs=1000)
    assert found.at_least
    assert found.text(COLOUR).startswith("more than 12 days at the speed of cifar10-narrow_4x2")


def test_a_gpu_says_nothing_about_a_cpu(params):
    fast = record(params, RUN, 5000, device="cuda", hardware="NVIDIA H100")
    assert estimate(params, RUN, [fast]) is None
    assert estimate(params, RUN, [fast], device="cuda").speed_of.hardware == "NVIDIA H100"


def test_of_several_stretches_the_last_on_such_a_device_counts(params):
    stretch = {"device": "cpu", "hardware": "1 core of A", "seconds": 100}
    several = [
        stretch | {"from_epoch": 0, "to_epoch": 4},
        stretch | {"from_epoch": 4, "to_epoch": 5},
        stretch | {"from_epoch": 5, "to_epoch": 10, "device": "cuda"},
    ]
    found = estimate(params, RUN, [record(params, RUN, 1, stretches=several)])
    assert found.speed_of.images_per_second == pytest.approx(1000 / 100)


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": 0},
        {"epochs": 0},
        {"epochs": "many"},
        {"config": None},
        {"dataset": "gone"},
        {"images_seen": 0},
        {"stretches": [{}]},
    ],
)
def test_a_record_that_does_not_tell_a_speed_is_passed_over(params, changes):
    assert estimate(params, RUN, [record(params, RUN, 1, **changes)]) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "a minute"),
        (40 * 60, "40 min"),
        (2.44 * 3600, "2.4 h"),
        (36 * 3600, "36 h"),
        (20 * 86400, "20 days"),
    ],
)
def test_durations_are_for_people(seconds, words):
    assert estimates.duration(seconds) == words
