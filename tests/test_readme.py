"""What the README says is so: its commands run, its blocks work, its numbers are measured."""

import os
import re
import shlex
import subprocess
import tomllib

import pandas as pd
import pytest
import yaml

from miniature import PROJECT
from scripts import script
from vlae.config.load import load_params
from vlae.receptive_field import decoder_kernels, reach

README = (PROJECT / "README.md").read_text()
BIN = PROJECT / ".venv" / "bin"


readme = script("readme")
FENCED = re.compile(r"```.*?```", re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for line in re.findall(r"^    (.*)$", FENCED.sub("", README), re.MULTILINE)
    if not line.startswith("vlae: ")  # what a command prints
]


# tests/workflow/test_rules.py has the rules
@pytest.mark.parametrize(
    ("page", "name"),
    [(page, name) for page, parts in readme.BLOCKS.items() for name in parts if name != "rules"],
)
def test_generated_parts_are_what_results_say(page, name):
    (part,) = readme.block(name).findall((PROJECT / page).read_text())
    assert part == readme.BLOCKS[page][name](), "make readme"


def test_the_headline_says_each_status_in_its_first_sentence():
    (part,) = readme.block("headline").findall(README)
    first = part.splitlines()[0]
    rows = [line for line in part.splitlines() if line.startswith("| ") and "**" in line]
    assert f"Of {len(rows)} comparisons" in first
    counted = {status: int(n) for n, status in re.findall(r"(\d+) ([a-z ]+)[,.]", first)}
    assert sum(counted.values()) == len(rows)
    for status, n in counted.items():
        assert sum(f"**{status}**" in row for row in rows) == n


# --- commands --------------------------------------------------------------------------------


def commands(program):
    return [command for command in COMMANDS if command[0] == program]


def run(command, **options):
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=options.pop("cwd", PROJECT), env=env, text=True, capture_output=True
    )
    assert done.returncode == 0, (command, done.stdout[-500:], done.stderr[-2000:])
    return done


def test_every_command_is_of_a_program_that_these_tests_run():
    assert {command[0] for command in COMMANDS} == {"make", "snakemake", "vlae", "dvc", "."}
    assert commands(".") == [[".", ".venv/bin/activate"]]


def test_make_has_the_targets():
    for _, *targets in commands("make"):
        run(["make", "-n", *targets])


def test_snakemake_knows_the_options():
    from snakemake.cli import parse_args

    for command in commands("snakemake"):
        _, arguments = parse_args(command[1:])
        assert arguments.cores or arguments.dryrun
    assert any("slurm" in command for command in commands("snakemake"))
    assert (PROJECT / "slurm" / "config.yaml").exists()


def test_snakemake_plans():
    assert ["snakemake", "-n"] in COMMANDS
    assert "train" in run(["snakemake", "-n"]).stderr


@pytest.mark.parametrize("command", commands("vlae"), ids=shlex.join)
def test_vlae_knows_the_step(command):
    step = command[1:]
    if step[0] in ("list", "show", "--help"):
        said = run(["python", "-m", "vlae", *step]).stdout
        assert {"list": "NLL", "show": "settings", "--help": "COMMAND"}[step[0]] in said
    else:
        described = run(["python", "-m", "vlae", step[0], "--help"]).stdout
        assert [option for option in step if option.startswith("--")] == ["--out"]
        assert "--out" in described


def test_dvc_takes_the_remote(tmp_path):
    run(["git", "init", "-q"], cwd=tmp_path)
    run(["dvc", "init", "-q"], cwd=tmp_path)
    for command in commands("dvc"):
        if command[1] == "remote":
            run(command, cwd=tmp_path)
        else:
            assert command[2] in run(["dvc", command[1], "--help"]).stdout
    config = (tmp_path / ".dvc" / "config").read_text()
    assert "remote = s3" in config and "verify = true" in config


# --- blocks ----------------------------------------------------------------------------------


def test_a_run_of_ones_own_gets_its_row(tmp_path, monkeypatch):
    from vlae.report import paper
    from vlae.report.tables import paper_table

    own, row = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.S))
    ((name, _),) = own["runs"].items()
    whole = yaml.safe_load((PROJECT / "params.yaml").read_text())
    whole["runs"] |= own["runs"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(whole))
    params = load_params(tmp_path / "params.yaml")
    assert params.runs[name].model.latent_dim == 16
    assert params.runs[name].training.learning_rate == 0.002  # inherited
    printed = yaml.safe_load((PROJECT / "src/vlae/report/paper.yaml").read_text())
    printed["tables"]["table1_static_mnist"]["rows"] += row
    monkeypatch.setattr(paper, "paper", lambda: printed)
    shown = paper_table.build("table1_static_mnist", params, tmp_path).shown
    assert shown["Model"].iloc[-1] == f"**{row[0]['model']}**"
    assert shown["Note"].iloc[-1].startswith("not trained")
    assert any(f"runs={name}" in command for command in re.findall(r"`(snakemake .*?)`", README))


# --- numbers in sentences --------------------------------------------------------------------


def prose():
    """The README without code, generated parts, links' targets and table rules."""
    text = README
    for name in readme.BLOCKS["README.md"]:
        text = readme.block(name).sub("", text)
    text = FENCED.sub("", text)
    text = re.sub(r"^    .*$", "", text, flags=re.M)
    text = re.sub(r"`[^`]*`", "", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def gigabytes(*paths):
    done = subprocess.run(["du", "-sck", *map(str, paths)], capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1].split()[0]) / 2**20


def test_numbers_in_sentences():
    """Every number in a sentence is one of those below, each with what it has to agree with."""
    text = prose()
    numbers = re.findall(r"(?<![\w-])(\d[\d.v]*\d|\d)", text)  # not CIFAR-10, bfloat16
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    params = load_params(PROJECT / "params.yaml")

    windows = pd.read_csv(PROJECT / "results/tables/decoder_windows.csv").set_index("run")

    def decoder(run):
        return params.runs[run].model.decoder

    def pixels(run):
        like = decoder(run)
        kernels = like.first_kernel, like.masked_blocks, like.last_masked
        return len(reach(decoder_kernels(*kernels)))

    headline = pd.read_csv(PROJECT / "results/tables/headline.csv")
    kl = headline[headline["quantity"] == "KL"].dropna(subset=["difference"])
    wide = [r for r in kl["run"] if pixels(r) == 402 and decoder(r).kind == "pixelcnn"]
    lower = -kl.loc[kl["run"].isin(wide), "difference"]
    lacks = headline.set_index("run")["difference"].round(2)

    known = {
        "2017": True,
        "1611.02731v2": True,
        "3.11": settings["project"]["requires-python"] == ">=3.11",
        "69": pixels("static_mnist-window_a") == 69,
        "402": pixels("static_mnist-vlae") == 402,
        "1.5": round(lower.min(), 1) == 1.5,
        "2.3": round(lower.max(), 1) == 2.3,
        "12.42": round(windows.loc["dynamic_mnist-vlae_window_a", "kl"], 2) == 12.42,
        "13.52": round(windows.loc["static_mnist-vlae_window_a", "kl"], 2) == 13.52,
        "13.3": 13.3 in list(windows.loc[windows.index.isna(), "kl"]),
        "11.73": 11.73 in list(windows.loc[windows.index.isna(), "kl"]),
        "0.39": lacks["static_mnist-vae_af"] == 0.39,
        "0.12": lacks["static_mnist-vae_iaf"] == 0.12,
        "1.1": True,  # test_sizes_on_disk
        "6": True,
        "0.5": True,
    }
    tables = {"1", "2", "3", "4", "5", "7"}  # numbers of tables and sections
    assert set(numbers) - tables == set(known), set(numbers) ^ set(known)
    assert all(known.values()), known


def test_sizes_on_disk():
    assert gigabytes(BIN.parent) == pytest.approx(6, rel=0.25)
    lock = yaml.safe_load((PROJECT / "dvc.lock").read_text())["stages"].values()
    outputs = {out["path"]: out["size"] for stage in lock for out in stage.get("outs", [])}
    results = sum(size for path, size in outputs.items() if path.startswith("results/"))
    assert 2 * results / 1e9 == pytest.approx(0.5, rel=0.15)
    if (PROJECT / ".git").is_dir():
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
        ).stdout.split("\0")
        files = sum((PROJECT / name).stat().st_size for name in tracked if name)
        # What is reachable, each object once: a clone may hold several packs with the same ones.
        reachable = subprocess.run(
            ["git", "rev-list", "--objects", "--disk-usage", "HEAD"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        objects = int(reachable)
        if objects > files:  # the whole history
            assert (files + objects) / 1e6 == pytest.approx(1100, rel=0.15)
