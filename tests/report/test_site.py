"""results/report.html says what the results say, all of it, and loads nothing."""

import base64
import csv
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image, ImageChops

import recorded
import reported
from html_tree import parse
from miniature import PROJECT
from vlae.cli import main
from vlae.report.figures.colours import COLOUR_OF, contrast
from vlae.report.figures.registry import FIGURES
from vlae.report.overview import settings, summaries
from vlae.report.site.drawn_tables import read_table, sort_key
from vlae.report.site.gather import WORKFLOW, recorded_inputs
from vlae.report.site.graph import layers, read_rules, reduced
from vlae.report.site.kinds import KINDS
from vlae.report.site.page import write_report
from vlae.report.site.plot import Axis, Line, histogram, line_plot
from vlae.report.verdicts import (
    NOT_SIGNIFICANT,
    NOT_TRAINED,
    OTHER_SIZE,
    REPRODUCED,
    SAME_SIGN,
)
from vlae.units import BITS_PER_DIM, NATS

PARAMS = reported.PARAMS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return reported.write_results(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def text(root):
    return write_report(PARAMS, root).read_text()


@pytest.fixture(scope="module")
def page(text):
    return parse(text)


def run_page(page, run):
    return page.one("section", id=f"/run/{run}")


def cells(table):
    return [
        [cell.text() for cell in row.children if not isinstance(cell, str)]
        for row in table.every("tr")
    ]


def test_every_trained_run_has_a_page_with_the_numbers_of_its_evaluation(page, root):
    for one in summaries(PARAMS, root):
        if one.run not in reported.TRAINED:
            continue
        found = run_page(page, one.run)
        assert found.one("h1").text() == one.run
        tiles = found.one("dl", class_="tiles").text()
        assert ("NLL" in tiles) == (one.run != reported.UNEVALUATED)
        if one.nll is not None:
            assert f"{one.nll:.2f} ± {one.nll_se:.2g} {one.unit}" in tiles
        if one.paper is not None:
            assert f"Paper {one.paper:.2f}" in tiles


def test_an_untrained_run_is_a_line_and_has_no_page(page):
    for run in PARAMS.runs.keys() - reported.TRAINED:
        line = page.one(id=f"/run/{run}")
        assert line.tag == "li" and "not trained" in line.text()


def test_records_settings_and_diagnostics_stand_on_the_page(page):
    run = PARAMS.runs[reported.VLAE]
    found = run_page(page, run.name).text()
    facts = [
        f"data_sha256 {'d' * 64}",
        "torch 2.1",
        "git_revision abc123",
        f"hardware {reported.HOSTILE}",
        "seed 0",
        "pareto.failing 0.02",
        "Images with k̂ above 0.70 2.0%",
        "Effective samples 21.2 of 64",
        "training.decay_epochs 12 0",
        *(f"{key} {value}" for key, value, _ in settings(PARAMS, run)),
    ]
    assert [fact for fact in facts if fact not in found] == []


def test_the_curves_are_drawn_and_read_out(page):
    svgs = list(run_page(page, reported.AF).every("svg"))
    labels = [svg.attrs["aria-label"] for svg in svgs]
    assert "after 30 epochs 80.00 nats on training images, 80.00 on validation" in labels[0]
    assert labels[1].startswith("KL against the epoch. after 30 epochs 11.00")
    labels = [svg.attrs["aria-label"] for svg in run_page(page, reported.VLAE).every("svg")]
    assert labels[2].endswith("importance samples. 81.98 nats with K = 1, 80.00 with K = 128")
    assert len(list(run_page(page, reported.ALONE).every("svg"))) == 2  # no KL, no K


@pytest.mark.parametrize("name", reported.TABLES)
def test_a_table_has_the_cells_of_the_drawn_one(page, root, name):
    drawn = parse((root / "results" / "tables" / f"{name}.html").read_text()).one("table")
    if name == "claims":
        shown = page.one(id="/claims").text()
        assert all(cell in shown for row in cells(drawn)[1:] for cell in row[:3])
        return
    shown = page.one(id=f"/table/{name}")
    assert cells(shown) == cells(drawn)
    assert shown.one("caption").text() == drawn.one("caption").one("strong").text()
    with open(root / "results" / "tables" / f"{name}.csv") as file:
        runs = [row["run"] for row in csv.DictReader(file)]
    rows = [row for row in shown.every("tr") if row.attrs.get("class") != "group"][1:]
    for run, row in zip(runs, rows, strict=True):
        heading = row.one("th", scope="row")
        links = [link.attrs["href"] for link in heading.every("a")]
        assert links == ([f"#/run/{run}"] if run else [])
    assert page.one(id="/").one("section", id="/table/headline")


def test_columns_are_sorted_by_the_number_that_is_shown(page):
    for row in page.one(id="/table/table1_static_mnist").every("td", class_="number"):
        if row.text():
            assert float(row.attrs["data-value"]) == sort_key(row.text())


@pytest.mark.parametrize(
    ("shown", "number"),
    [
        ("≤ 79.03", 79.03),
        ("79.05 †", 79.05),
        ("+1.13", 1.13),
        ("-2.34", -2.34),
        ("−2.34", -2.34),
        ("10,000", 10000),
        ("> 0 (≈ 8.07)", 0),
        ("", None),
        ("exact", None),
    ],
)
def test_the_number_in_a_cell(shown, number):
    assert sort_key(shown) == number


def test_every_claim_has_its_verdict_and_the_runs_it_rests_on(page, root):
    table = read_table("claims", root)
    claims = list(page.every("article", class_="claim"))
    assert len(claims) == len(table.rows) > 10
    for claim, row in zip(claims, table.rows, strict=True):
        assert claim.one("h3").text().startswith(row.cells[0])
        assert claim.one("span", class_="badge").text() == row.cells[table.column("Verdict")]
        assert {f"#/run/{run}" for run in row.runs} == {
            link.attrs["href"] for link in claim.every("a")
        }
        assert row.runs


def test_verdicts_are_counted_without_the_marks_that_follow_them(page, root):
    rows = read_table("claims", root).rows
    (said,) = re.findall(r"paper's claims\s*: (.*?)\.", page.text())
    counts = {word: int(n) for n, word in re.findall(r"(\d+) ([^;]+)", said)}
    assert sum(counts.values()) == len(rows)
    assert set(counts) <= {OTHER_SIZE, SAME_SIGN, REPRODUCED, NOT_TRAINED, NOT_SIGNIFICANT}


def test_figures_are_those_that_are_drawn(page, root, text):
    figure = page.one("figure", id="/figure/figure1_static_mnist")
    shown = base64.b64decode(figure.one("img").attrs["src"].partition(",")[2])
    with Image.open(root / "results" / "figures" / "figure1_static_mnist.png") as drawn:
        difference = ImageChops.difference(Image.open(io.BytesIO(shown)), drawn.convert("RGB"))
        assert difference.getbbox() is None
        assert figure.one("img").attrs["width"] == str(drawn.width)
    assert "not trained: omniglot-vlae" in page.one("p", id="/figure/figure2_omniglot").text()
    assert "not drawn yet" in page.one("p", id="/figure/learning_curves").text()


def test_every_figure_has_a_title_and_a_caption():
    file = PROJECT / "src" / "vlae" / "report" / "site" / "captions.yaml"
    captions = yaml.safe_load(file.read_text())
    assert captions.keys() == FIGURES.keys()
    assert all(one.keys() == {"title", "caption"} and one["caption"] for one in captions.values())


@pytest.mark.parametrize("run", [reported.VLAE, reported.COLOUR])
def test_each_test_image_has_its_values_and_its_place(page, root, run):
    unit = BITS_PER_DIM if run == reported.COLOUR else NATS
    values = np.load(root / "results" / "evaluations" / f"{run}.npz")
    nll = -values["log_likelihood"].astype(float) * unit.per_nat
    explorer = run_page(page, run).one("div", class_="explorer")
    items = list(explorer.every("li"))
    assert [int(item.attrs["data-index"]) for item in items] == list(range(0, 300, 3))
    for place, item in enumerate(items):
        i = 3 * place
        assert float(item.attrs["data-nll"]) == pytest.approx(nll[i], abs=0.006)
        assert float(item.attrs["data-kl"]) == pytest.approx(values["kl"][i], abs=0.006)
        assert float(item.attrs["data-ess"]) == pytest.approx(values["ess"][i], abs=0.06)
        if run == reported.COLOUR and i > 3:
            assert float(item.attrs["data-khat"]) == pytest.approx(
                values["pareto_k"][i], abs=0.006
            )
        else:  # not recorded, or not finite
            assert "data-khat" not in item.attrs
        below = 100 * np.mean(nll < nll[i])
        assert float(item.attrs["data-below"]) == pytest.approx(below, abs=0.051)
        cells = list(item.every("span", class_="cell"))
        assert [cell.attrs["aria-label"] for cell in cells] == [
            f"test image {i}",
            f"decompression of test image {i}",
        ]
        places = {cell.attrs["style"] for cell in cells}
        assert places == {f"--x:{place % 10};--y:{place // 10}"}


def test_a_run_without_a_code_shows_the_test_images_of_another(page):
    """The pixelcnn stands before the VLAE in params.yaml."""
    found = run_page(page, reported.ALONE)
    assert "likelihood is exact" in found.text()
    assert f"those recorded with {reported.DYNAMIC}" in found.text()
    explorer = found.one("div", class_="explorer")
    assert len(list(explorer.every("li"))) == 100
    assert not [c for c in explorer.every(class_="cell") if "decomp" in c.attrs["aria-label"]]


def test_an_image_stands_once_in_the_file(text):
    uris = re.findall(r"\.s-([0-9a-f]+)\{", text)
    assert len(uris) == len(set(uris))


def test_nothing_is_loaded_from_anywhere(page, text):
    for node in page.every():
        for key in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            if value := node.attrs.get(key):
                assert value.startswith(("data:image/", "#")), (node.tag, value)
        assert not [key for key in node.attrs if key.startswith("on")]
    assert all(url.startswith(("data:", "#")) for url in re.findall(r"url\((.{9})", text))
    assert not list(page.every("link")) and "@import" not in text
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attrs["content"]
    assert "default-src 'none'" in policy and "http" not in policy


def test_every_link_leads_somewhere(page):
    ids = {node.attrs["id"] for node in page.every() if "id" in node.attrs}
    links = {node.attrs["href"][1:] for node in page.every("a")}
    assert links <= ids
    assert {f"/run/{run}" for run in PARAMS.runs} <= ids


def test_tables_and_images_can_be_read_without_eyes(page):
    for image in page.every("img"):
        assert image.attrs["alt"]
    for node in page.every(role="img"):
        assert node.attrs["aria-label"]
    for table in page.every("table"):
        assert table.one("caption").text()
        assert all(cell.attrs.get("scope") for cell in table.every("th"))


def test_what_files_say_is_never_markup(page, text):
    assert reported.HOSTILE in run_page(page, reported.VLAE).text()
    assert "<img src=x" not in text


def test_the_same_results_give_the_same_bytes(root, text):
    assert write_report(PARAMS, root).read_text() == text


def test_it_needs_no_torch(root):
    code = (
        "import sys; from vlae.cli import main; main(['report']); "
        "print(sorted({'torch', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("written: results/report.html (")
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_any_result_it_says_so(project):
    (project / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    assert main(["report"]) == 0
    page = parse((project / "results" / "report.html").read_text())
    assert not list(page.every("img")) and not list(page.every("article"))
    assert f"0 of {len(PARAMS.runs)} runs are trained" in page.one(id="/").text()
    assert "README.md has none" in page.one(id="/workflow").text()


def test_a_damaged_file_is_one_line(project, capsys):
    reported.write_results(project)
    (project / "results" / "samples" / f"{reported.VLAE}.npz").write_bytes(b"PK")
    assert main(["report"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"results/samples/{reported.VLAE}.npz" in line
    assert not (project / "results" / "report.html").exists()


def test_a_damaged_record_is_told_in_the_line_of_its_run(tmp_path):
    recorded.write_training(tmp_path, reported.VLAE, epochs="many")
    page = parse(write_report(PARAMS, tmp_path).read_text())
    assert "'epochs' must be int" in page.one("li", id=f"/run/{reported.VLAE}").text()


def test_what_it_reads_is_known_to_the_workflow(root):
    """Removing any of the files that the workflow does not name changes nothing."""
    named = {*recorded_inputs(PARAMS), *WORKFLOW, "results/report.html"}
    named |= {str(path.relative_to(root)) for path in root.glob("results/[tf]*/*")}
    before = write_report(PARAMS, root).read_bytes()
    for path in [path for path in root.rglob("*") if path.is_file()]:
        if str(path.relative_to(root)) not in named:
            path.unlink()
    assert write_report(PARAMS, root).read_bytes() == before


def test_the_graph_has_every_rule_in_the_order_of_its_needs(page):
    edges = read_rules(PROJECT)
    columns = layers(edges)
    assert {"fetch", "train", "evaluate", "sample", "table", "figure", "report"} <= columns.keys()
    assert all(columns[a] < columns[b] for a, b in edges)
    graph = page.one(id="/workflow").one("svg")
    assert {node.text() for node in graph.every("text")} == columns.keys()
    assert len([p for p in graph.every("path") if p.attrs.get("class") == "arrow"]) == len(
        reduced(edges)
    )
    steps = {step.text() for step in page.one(id="/workflow").every("th", scope="row")}
    assert steps == yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"].keys()


def test_an_arrow_that_follows_from_others_is_left_out():
    edges = {("a", "b"), ("b", "c"), ("a", "c"), ("a", "d"), ("c", "d")}
    assert reduced(edges) == {("a", "b"), ("b", "c"), ("c", "d")}
    with pytest.raises(ValueError, match="cycle"):
        layers({("a", "b"), ("b", "a")})


def test_a_plot_puts_each_point_in_its_place():
    x, y = Axis("K", 1, 64, log=True), Axis("NLL", 79, 80)
    assert x.place(np.array([1, 8, 64])).tolist() == [0, 0.5, 1]
    assert x.ticks(7) == [1, 2, 4, 8, 16, 32, 64]
    assert y.ticks(5) == pytest.approx([79, 79.2, 79.4, 79.6, 79.8, 80])
    line = Line(np.array([1, 8, 64]), np.array([80, 79.5, np.nan]), "training")
    svg = parse(line_plot("A <plot>", "of & numbers", x, y, [line])).one("svg")
    assert svg.attrs["aria-label"] == "A <plot>. of & numbers"
    (path,) = (p.attrs["d"] for p in svg.every("path") if p.attrs["class"] == "line training")
    assert path == "M54.0 10.0L238.0 101.0"


@pytest.mark.parametrize(
    "values", [[80.0], [80.0, 80.0], [1e300, 0.0], [0.0, 5e-324], [-1e300] * 3]
)
def test_a_histogram_of_any_values_has_all_of_them(values):
    svg = parse(histogram("A histogram", "of values", "NLL", np.array(values))).one("svg")
    bars = [bar for bar in svg.every("rect") if bar.attrs["class"] == "bar"]
    assert len(bars) == (2 if values == [1e300, 0.0] else 1)
    low, high = float(svg.attrs["data-low"]), float(svg.attrs["data-high"])
    assert low < high and "nan" not in str(svg) and "inf" not in str(svg)


def test_kinds_have_the_colours_of_the_figures_and_brighter_ones_on_dark():
    assert [kind.light for kind in KINDS.values()] == list(COLOUR_OF.values())
    assert len({kind.key for kind in KINDS.values()}) == len(KINDS)
    for kind in KINDS.values():
        assert contrast([int(kind.dark[i : i + 2], 16) for i in (1, 3, 5)]) <= 3
