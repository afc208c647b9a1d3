"""params.yaml is checked to the last key, and says in one line what is wrong."""

import copy
import dataclasses

import pytest
import yaml

from miniature import PROJECT
from vlae.config.load import load_params
from vlae.config.schema import (
    ClassifierConfig,
    ColourModelConfig,
    ColourTrainingConfig,
    EvaluationConfig,
    ModelConfig,
    TrainingConfig,
    as_dict,
)
from vlae.errors import VlaeError

TEXT = (PROJECT / "params.yaml").read_text()


EVALUATION = ("defaults", "binary", "evaluation")


def load_changed(tmp_path, change):
    tree = yaml.safe_load(TEXT)
    change(tree)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_params(path)


def assign(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(tree):
        for key in keys:
            tree = tree[key]
        tree[last] = value

    return change


def delete(*keys):
    def change(tree):
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return change


COLOUR_RUN = ("runs", "cifar10-vlae_7x4")
RUN = ("runs", "static_mnist-vlae")
ONE_FILE = ("datasets", "omniglot", "files", "all")
AN_ENTRY = {"path": "a/b", "sha256": "0" * 64, "bytes": 9, "urls": []}


def other_files(form, files):
    return assign("datasets", "omniglot", "alternative", {"format": form, "files": files})


def test_a_run_inherits_the_defaults_key_by_key():
    runs = load_params(PROJECT / "params.yaml").runs
    assert runs["static_mnist-vlae"].model.decoder.kind == "pixelcnn"
    factorized = runs["static_mnist-vlae_factorized"].model
    assert factorized.decoder.kind == "factorized"
    assert factorized.decoder.maps == runs["static_mnist-vlae"].model.decoder.maps
    assert runs["static_mnist-vae_af"].model.prior.steps == 8
    assert runs["static_mnist-vlae"].training.betas == (0.9, 0.999)
    assert as_dict(runs["static_mnist-vlae"].model)["trunk_maps"] == [16, 32, 32]


def test_the_papers_hyper_parameters():
    """Sections 4.1 and appendix A, as far as the paper states them."""
    run = load_params(PROJECT / "params.yaml").runs["static_mnist-vlae"]
    model, training = run.model, run.training
    assert (model.latent_dim, model.trunk_hidden, model.trunk_maps) == (64, 450, (16, 32, 32))
    prior = model.prior
    assert (prior.flow, prior.steps, prior.hidden, prior.layers) == ("af", 4, 640, 3)
    assert not prior.scale and model.posterior.flow == "none"
    decoder = model.decoder
    assert (decoder.maps, decoder.filters, decoder.pointwise_blocks) == (4, 12, 4)
    assert decoder.tied
    assert (training.learning_rate, training.polyak) == (0.002, 0.998)
    assert training.free_bits == pytest.approx(0.01 * 784)


def without_budget(training):
    return dataclasses.replace(training, epochs=1, decay_epochs=0)


def test_one_set_of_hyper_parameters_for_all_data_sets():
    """Only the weight tying and the budget differ, and what the fine-tuned run changes."""
    runs = load_params(PROJECT / "params.yaml").runs
    first = runs["static_mnist-vlae"]
    untied = dataclasses.replace(
        first.model, decoder=dataclasses.replace(first.model.decoder, tied=False)
    )
    for dataset in ("dynamic_mnist", "omniglot", "omniglot_rebuilt", "caltech101"):
        run, alone = runs[f"{dataset}-vlae"], runs[f"{dataset}-pixelcnn"]
        assert run.model == untied
        assert without_budget(run.training) == without_budget(first.training)
        assert run.evaluation == alone.evaluation == first.evaluation
        assert alone.model == runs["dynamic_mnist-pixelcnn"].model
        assert (alone.training.batch_size, alone.training.learning_rate) == (32, 0.006)
    for dataset in ("omniglot", "omniglot_rebuilt"):
        tuned, plain = runs[f"{dataset}-vlae_tuned"], runs[f"{dataset}-vlae"]
        narrow = dataclasses.replace(tuned.model.decoder, filters=plain.model.decoder.filters)
        assert dataclasses.replace(tuned.model, decoder=narrow) == plain.model
        assert without_budget(tuned.training) == without_budget(plain.training)
    gaussian = runs["dynamic_mnist-vlae_gaussian"].model
    assert (gaussian.prior.flow, gaussian.posterior.flow) == ("none", "none")


def repeat(**changes):
    """A repetition of the first run, with changes to its block (None: without that key)."""
    block = {"dataset": "static_mnist", "repeats": "static_mnist-vlae", "seed": 11} | changes
    block = {key: value for key, value in block.items() if value is not None}
    return assign("runs", "static_mnist-vlae_again", block)


def refine(training=None, section="refined", **changes):
    """A run that begins with the weights of the first one, with changes to its block."""
    block = {"dataset": "static_mnist", "model": {}, "evaluation": {}} | changes
    block["training"] = {"start_from": RUN[1]} | (training or {})
    return assign(section, "static_mnist-more", block)


def test_a_refined_run_knows_the_run_that_it_begins_with(tmp_path):
    run = load_changed(tmp_path, refine({"bound_samples": 4, "free_bits": 0})).run(
        "static_mnist-more"
    )
    assert (run.start.name, run.start.start) == (RUN[1], None)
    assert (run.training.bound_samples, run.training.epochs) == (4, 30)
    further = assign(
        "refined",
        "static_mnist-further",
        {
            "dataset": "static_mnist",
            "model": {"decoder": {"filters": 32}},
            "training": {"start_from": "static_mnist-vlae_plus"},
            "evaluation": {},
        },
    )
    chain = load_changed(tmp_path, further).run("static_mnist-further")
    assert chain.start.start.name == RUN[1] and chain.block == "refined.static_mnist-further"
    tuned = ("omniglot-vlae_tuned", "omniglot_rebuilt-vlae_tuned")  # the better row of its table
    for base in tuned:
        plus = load_params(PROJECT / "params.yaml").run(base.removesuffix("_tuned") + "_plus")
        assert plus.start.name == base and plus.training.split == "train+valid"
        assert plus.training.learning_rate < plus.start.training.learning_rate / 2
        assert "bound_samples" not in as_dict(plus.start.training)


def test_a_refined_run_may_have_more_filters(tmp_path):
    run = load_changed(tmp_path, refine(model={"decoder": {"filters": 20}})).run(
        "static_mnist-more"
    )
    assert (run.model.decoder.filters, run.start.model.decoder.filters) == (20, 12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (refine({"start_from": "static_mnist-vla"}), "start_from: no run 'static_mnist-vla'"),
        (refine({"start_from": ""}), "start_from: name a run, or move this one to `runs`"),
        (refine(section="runs"), "runs.static_mnist-more.training.start_from: move the run to"),
        (
            refine({"start_from": "static_mnist-more"}),
            "static_mnist-more → static_mnist-more is a circle",
        ),
        (
            assign("refined", "static_mnist-vlae_plus", "training", {"start_from": "x"}),
            "vlae_plus.training.start_from: no run 'x' to begin with",
        ),
        (
            refine({"start_from": "omniglot-vlae"}),
            "refined.static_mnist-more.dataset must be omniglot",
        ),
        (
            refine(model={"decoder": {"filters": 9}}),
            "more.model must be that of static_mnist-vlae, .* decoder.filters is 9 here and 12 "
            "there; only decoder.filters may be larger",
        ),
        (
            refine(model={"decoder": {"filters": 20, "maps": 6}}),
            "more.model must be that of static_mnist-vlae, .* decoder.maps is 6 here and 4 there",
        ),
        (
            refine({"bound_samples": 2}),
            "more.training.free_bits must be 0 with bound_samples 2, not 7.84",
        ),
        (refine({"bound_samples": 0}), "bound_samples must be at least 1"),
        (
            refine({"bound_gradient": "drawn"}),
            "more.training.bound_gradient must be all with bound_samples 1, not drawn",
        ),
        (refine({"bound_gradient": "one"}), "bound_gradient must be one of all, drawn, not 'one'"),
        (refine({"augment": "shift"}), "training.augment must be one of none, flip, not 'shift'"),
        (refine({"start_from": 3}), "start_from must be str"),
        (assign("refined", RUN[1], {}), "refined.static_mnist-vlae: runs has a run of that name"),
        (assign("refined", "a b", {}), "refined: 'a b' is not a valid name"),
        (delete("refined"), "key 'refined' is missing"),
        (
            assign(
                *("runs", "dynamic_mnist-pixelcnn", "training"),
                {"bound_samples": 2, "free_bits": 0},
            ),
            "pixelcnn.training.bound_samples must be 1 without a latent variable",
        ),
    ],
)
def test_faults_of_a_refined_run_are_one_line(tmp_path, change, said):
    with pytest.raises(VlaeError, match=said) as raised:
        load_changed(tmp_path, change)
    assert "\n" not in str(raised.value)


def test_runs_that_begin_with_each_other_are_a_circle(tmp_path):
    def change(tree):
        for one, other in (("vlae_plus", "more"), ("more", "vlae_plus")):
            block = copy.deepcopy(tree["refined"]["static_mnist-vlae_plus"])
            training = block["training"] | {"start_from": f"static_mnist-{other}"}
            tree["refined"][f"static_mnist-{one}"] = block | {"training": training}

    circle = "static_mnist-more → static_mnist-vlae_plus → static_mnist-more is a circle"
    with pytest.raises(VlaeError, match=circle):
        load_changed(tmp_path, change)


def test_a_data_set_of_colour_images_takes_the_colour_model(tmp_path):
    run = load_params(PROJECT / "params.yaml").runs["cifar10-vlae_7x4"]
    model, training = run.model, run.training
    assert isinstance(model, ColourModelConfig) and isinstance(training, ColourTrainingConfig)
    assert (model.trunk, model.widths, model.window) == ("densenet", (48, 96, 96), "7x4")
    assert (model.latent_maps, model.latent_dim) == (16, 1024)
    assert (model.flow_steps, model.flow_layers, model.flow_maps) == (6, 2, 128)
    assert (model.blocks, model.maps, model.grayscale) == (4, 64, False)
    with pytest.raises(VlaeError, match="model: unknown key 'latent_dim'"):
        load_changed(tmp_path, assign(*COLOUR_RUN, "model", {"latent_dim": 64}))
    with pytest.raises(VlaeError, match="model: unknown key 'window'"):
        load_changed(tmp_path, assign(*RUN, "model", {"window": "7x4"}))
    with pytest.raises(VlaeError, match=r"of colour images, whose runs need defaults\.colour"):
        load_changed(tmp_path, delete("defaults", "colour"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"widths": [48, 96]}, "model.widths must have three entries"),
        ({"window": "3x3"}, "model.window must be one of 4x2, 5x3, 7x4, not '3x3'"),
        ({"flow_maps": 8}, "model.flow_maps must be latent_maps or more"),
        ({"trunk": "vgg"}, "model.trunk must be one of resnet, densenet"),
    ],
)
def test_impossible_colour_models_are_refused(tmp_path, change, line):
    with pytest.raises(VlaeError, match=line):
        load_changed(tmp_path, assign(*COLOUR_RUN, "model", change))


def test_parts_of_a_data_set_are_all_needed(tmp_path):
    with pytest.raises(VlaeError, match="files: key 'train_3' is missing"):
        load_changed(tmp_path, delete("datasets", "cifar10", "alternative", "files", "train_3"))


def test_a_repetition_differs_in_nothing_but_the_seed(tmp_path):
    params = load_changed(tmp_path, repeat())
    run, again = (params.runs[f"static_mnist-vlae{end}"] for end in ("", "_again"))
    assert again.repeats == run.name and run.repeats is None
    assert again.training.seed == 11
    training = dataclasses.replace(again.training, seed=run.training.seed)
    assert dataclasses.replace(again, name=run.name, repeats=None, training=training) == run
    assert "static_mnist-vlae_again" in params.repetitions("static_mnist-vlae")
    assert params.repetitions("static_mnist-vlae_again") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (repeat(repeats="static_mnist-vla"), "again.repeats: no run 'static_mnist-vla' to repeat"),
        (repeat(repeats="static_mnist-vlae_again"), "no run 'static_mnist-vlae_again' to repeat"),
        (repeat(repeats=["a"]), "again.repeats must be str"),
        (repeat(seed=0), "again.seed: 0 is the seed of static_mnist-vlae already"),
        (repeat(seed=-1), "again.seed must be at least 0"),
        (repeat(seed=None), "key 'seed' is missing"),
        (repeat(dataset="dynamic_mnist"), "again.dataset must be static_mnist, as in"),
        (repeat(dataset=None), "key 'dataset' is missing"),
        (repeat(model={}), "again: unknown key 'model'"),
        (assign("extra", 1), "unknown key 'extra'"),
        (delete("defaults"), "key 'defaults' is missing"),
        (assign(*RUN, "training", {"learnin_rate": 0.1}), "vlae.training: unknown key 'learnin"),
        (assign(*RUN, "modle", {}), "unknown key 'modle'"),
        (delete(*RUN, "dataset"), "key 'dataset' is missing"),
        (delete("defaults", "binary", "training", "polyak"), "key 'polyak' is missing"),
        (assign(*RUN, "dataset", "mnist"), "no data set 'mnist'"),
        (assign(*RUN, "training", {"learning_rate": "1e-3"}), "must be float, not '1e-3'"),
        (assign(*RUN, "training", {"learning_rate": 0}), "greater than 0"),
        (assign(*RUN, "training", {"learning_rate": float("nan")}), "must be a number"),
        (assign(*RUN, "training", {"learning_rate": float("inf")}), "finite"),
        (assign(*RUN, "training", {"epochs": 0}), "epochs must be at least 1"),
        (assign(*RUN, "training", {"learning_rate": 100}), "learning_rate must be at most 1"),
        (assign(*COLOUR_RUN, "training", {"learning_rate": 2}), "learning_rate must be at most 1"),
        (assign("classifiers", "cifar10", "learning_rate", 100), "must be at most 1"),
        (assign(*RUN, "training", {"epochs": 10**8}), "epochs must be at most 10000000"),
        (assign(*RUN, "training", {"batch_size": 10**6}), "batch_size must be at most 100000"),
        (assign(*RUN, "training", {"init_images": 10**6}), "init_images must be at most 100000"),
        (assign(*RUN, "training", {"free_bits": 544}), "free_bits must be at most 543 "),
        (assign(*COLOUR_RUN, "training", {"free_bits": 1e6}), "free_bits must be at most 170"),
        (assign(*RUN, "evaluation", {"importance_samples": 10**7}), "must be at most 1000000"),
        (assign(*RUN, "evaluation", {"deep_samples": 10**7}), "must be at most 1000000"),
        (assign(*RUN, "dataset", "static_mnst"), "did you mean 'static_mnist'"),
        (assign(*RUN, "training", {"learnin_rate": 0.1}), "did you mean 'learning_rate'"),
        (assign("datasets", "omniglot", "unavailable", 1), "omniglot.unavailable must be str"),
        (assign("classifiers", "cifar99", {}), "classifiers.'cifar99': no data set of that name"),
        (assign("classifiers", "static_mnist", {}), "only colour data sets have labels"),
        (assign("classifiers", "cifar10", {"epochs": 1}), "key 'batch_size' is missing"),
        (assign("classifiers", "cifar10", "epochs", 0), "epochs must be at least 1, not 0"),
        (assign("labels", "mnist", {}), "labels.'mnist': no data set of that name"),
        (assign("labels", "cifar10", {}), "labels.'cifar10': images of the format cifar10_tar"),
        (assign("labels", "caltech101", "classes", 257), "classes must be at most 256"),
        (delete("labels", "dynamic_mnist", "files", "labels_test"), "key 'labels_test' is missi"),
        (assign("probes", "no-run", {}), "probes.'no-run': no run of that name"),
        (
            assign("probes", "static_mnist-vlae", "dataset", "cifar10"),
            "probes.'static_mnist-vlae'.dataset must be static_mnist",
        ),
        (
            assign("probes", "dynamic_mnist-pixelcnn", {"dataset": "dynamic_mnist"}),
            "probes.'dynamic_mnist-pixelcnn': the run's model has no code to probe",
        ),
        (delete("labels", "caltech101"), "caltech101 has no block under labels"),
        (assign("codelengths", "no-run", {}), "codelengths.'no-run': no run of that name"),
        (
            assign("codelengths", "static_mnist-vlae", "dataset", "mnist"),
            "codelengths.'static_mnist-vlae'.dataset: no data set 'mnist'",
        ),
        (
            assign("codelengths", "static_mnist-vlae", "dataset", "cifar10"),
            "codelengths.'static_mnist-vlae': only binary images can be compressed",
        ),
        (assign("codelengths", "static_mnist-vlae", "images", -1), "images must be at least 0"),
        (assign("lossy", "no-run", {}), "lossy.'no-run': no run of that name"),
        (assign("lossy", "static_mnist-vlae", "bits", 25), "bits must be at most 24"),
        (assign("lossy", "static_mnist-vlae", "images", 0), "images must be at least 1"),
        (assign(*RUN, "gpus", 0), "static_mnist-vlae.gpus must be at least 1"),
        (assign(*RUN, "gpus", "2"), "static_mnist-vlae.gpus must be int"),
        (delete("defaults", "gpus"), "key 'gpus' is missing"),
        (assign(*RUN, "training", {"epochs": True}), "epochs must be int"),
        (assign(*RUN, "training", {"epochs": 1.5}), "epochs must be int"),
        (assign(*RUN, "training", {"split": "all"}), "one of train, train.valid"),
        (assign(*RUN, "training", {"betas": [0.9]}), "two numbers"),
        (assign(*RUN, "training", {"betas": 0.9}), "must be a list"),
        (assign(*RUN, "training", None), "must be a mapping"),
        (assign(*RUN, "evaluation", {"deep_image": 5}), "evaluation: unknown key 'deep_image'"),
        (
            delete("defaults", "binary", "evaluation", "deep_images"),
            "key 'deep_images' is missing",
        ),
        (
            delete("defaults", "binary", "evaluation", "deep_samples"),
            "key 'deep_samples' is missing",
        ),
        (assign(*RUN, "evaluation", {"deep_images": -1}), "deep_images must be at least 0"),
        (assign(*RUN, "evaluation", {"deep_images": 1}), "deep_images must be 0 or at least 2"),
        (assign(*RUN, "evaluation", {"images": 1}), "evaluation.images must be 0 or at least 2"),
        (assign(*RUN, "evaluation", {"deep_images": 20.0}), "deep_images must be int"),
        (assign(*RUN, "evaluation", {"deep_samples": 0}), "deep_samples must be at least 1"),
        (assign(*RUN, "evaluation", {"deep_samples": "4k"}), "deep_samples must be int"),
        (
            assign(*RUN, "evaluation", {"deep_samples": 63}),
            r"vlae.evaluation.deep_samples must be at least importance_samples \(64\), not 63",
        ),
        (
            assign(*RUN, "evaluation", {"adaptive_samples": 4095}),
            r"vlae.evaluation.adaptive_samples must be 0 or at least 4096",
        ),
        (
            assign(*RUN, "evaluation", {"adaptive_samples": 63, "deep_images": 0}),
            r"adaptive_samples must be 0 or at least 64",
        ),
        (assign(*RUN, "evaluation", {"proposal_scale": 0}), "proposal_scale must be at least 0.1"),
        (assign(*RUN, "model", {"decoder": {"kind": "pixel"}}), "one of pixelcnn, factorized"),
        (assign(*RUN, "model", {"decoder": {"first_kernel": 6}}), "must be odd"),
        (assign(*RUN, "model", {"prior": {"flow": "iaf"}}), "must be af or none"),
        (assign(*RUN, "model", {"latent_dim": 0}), "nothing for a flow"),
        (assign("runs", "../evil", {}), "is not a valid name"),
        (assign("runs", "a b", {}), "is not a valid name"),
        (assign("runs", 3, {}), "is not a valid name"),
        (
            assign("datasets", "static_mnist", "files", "train", "path", "../../x"),
            "below data/raw",
        ),
        (assign("datasets", "static_mnist", "files", "train", "path", "/etc/x"), "below data/raw"),
        (assign("datasets", "static_mnist", "files", "train", "sha256", "abc"), "64 hexadecimal"),
        (assign("datasets", "static_mnist", "files", "train", "urls", ["file:///x"]), "http"),
        (assign(*ONE_FILE, "md5", "abc"), "files.all.md5 must be 32 hexadecimal"),
        (delete(*ONE_FILE, "git_blob"), "files.all: key 'git_blob' is missing"),
        (delete(*ONE_FILE, "md5"), "files.all: unknown key 'git_blob'"),
        (assign(*ONE_FILE, "sha256", "0" * 64), "files.all: unknown key 'sha256'"),
        (assign(*ONE_FILE, "max_bytes", 0), "max_bytes must be at least 1"),
        (delete(*ONE_FILE, "max_bytes"), "files.all: key 'bytes' is missing"),
        (assign("datasets", "omniglot", "files", {}), "files: key 'all' is missing"),
        (assign("datasets", "omniglot", "format", "idx"), "files: unknown key 'all'; known: tr"),
        (assign("datasets", "static_mnist", "format", "chardata_mat"), "known: all"),
        (assign("datasets", "omniglot", "format", "pickle"), "format must be one of amat, idx, "),
        (assign("datasets", "static_mnist", "splits", {"train": 1}), "key 'test' is missing"),
        (other_files("idx", {}), "omniglot.alternative.files: key 'train' is missing"),
        (other_files("pickle", {}), "omniglot.alternative.format must be one of amat, idx, "),
        (other_files("chardata_mat", {"all": {}}), "alternative.files.all: key 'bytes' is miss"),
        (other_files("chardata_mat", {"all": AN_ENTRY | {"urls": ["http://x/y"]}}), "be empty"),
        (assign("datasets", "omniglot", "alternative", {}), "alternative: key 'files' is missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, change, said):
    with pytest.raises(VlaeError, match=said) as error:
        load_changed(tmp_path, change)
    assert "params.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_data_set_may_have_alternative_files(tmp_path):
    params = load_changed(tmp_path, other_files("chardata_mat", {"all": AN_ENTRY}))
    assert params.dataset("omniglot")["alternative"]["files"] == {"all": AN_ENTRY}


def numeric_fields(schema):
    for one in dataclasses.fields(schema):
        if dataclasses.is_dataclass(one.type):
            yield from numeric_fields(one.type)
        elif one.type in (int, float, tuple[int, ...], tuple[float, ...]):
            yield one


@pytest.mark.parametrize(
    "schema",
    [
        ModelConfig,
        TrainingConfig,
        ColourModelConfig,
        ColourTrainingConfig,
        EvaluationConfig,
        ClassifierConfig,
    ],
)
def test_every_number_has_a_ceiling(schema):
    """But for seeds, any of which is as good as another."""
    without = {one.name for one in numeric_fields(schema) if one.metadata["high"] is None}
    assert without <= {"seed", "binarization_seed"}


def test_deep_samples_matter_only_where_there_are_deep_images(tmp_path):
    for evaluation in (
        {"deep_images": 0, "deep_samples": 1},
        {"deep_images": 2, "deep_samples": 64},
    ):
        params = load_changed(tmp_path, assign(*RUN, "evaluation", evaluation))
        assert as_dict(params.runs[RUN[1]].evaluation).items() > evaluation.items()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "must be a mapping"),
        ("", "must be a mapping"),
        (TEXT + "\ndefaults: {}\n", "given twice"),
        ("x: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_files_that_are_not_params_are_refused(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(VlaeError, match=said) as error:
        load_params(path)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(VlaeError, match="cannot be read"):
        load_params(tmp_path / "none.yaml")
