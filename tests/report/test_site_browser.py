"""results/report.html as a person meets it, in headless Chromium; skipped where there is none."""

import pytest

import reported
from browser import browser
from vlae.report.site.page import write_report

ROUTES = ["#/", "#/figures", "#/tables", "#/claims", "#/runs", "#/workflow"]
ROUTES += [f"#/run/{run}" for run in reported.TRAINED]
SHOWN = (
    "[...document.querySelectorAll('.page')].filter((p) => p.checkVisibility()).map((p) => p.id)"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(reported.PARAMS, reported.write_results(tmp_path_factory.mktemp("site")))


@pytest.fixture(scope="module")
def chromium():
    with browser() as one:
        yield one


@pytest.fixture
def tab(chromium, report):
    """The start page, 1400 pixels wide."""
    chromium.size(1400)
    chromium.go("about:blank")
    chromium.problems.clear()
    chromium.open(report)
    yield chromium
    assert chromium.problems == []


def settle(tab):
    tab.do("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def at(tab, report, route):
    tab.open(report, route)
    settle(tab)


def test_each_address_shows_its_page_alone(tab, report):
    assert tab.do(SHOWN) == ["/"]
    for route in ROUTES:
        at(tab, report, route)
        page = "/" if route == "#/figures" else route[1:]
        assert tab.do(SHOWN) == [page]
        title = tab.do("document.title")
        assert title.endswith("Variational Lossy Autoencoder, reproduced")
        assert (page.rpartition("/")[2] in title.lower()) or page == "/"


def test_an_address_within_a_page_and_an_unknown_one(tab, report):
    at(tab, report, "#/claim/7")
    assert tab.do(SHOWN) == ["/claims"]
    top = tab.do("document.getElementById('/claim/7').getBoundingClientRect().top")
    assert 0 <= top < 200
    at(tab, report, "#/run/nobody")
    assert tab.do(SHOWN) == ["/"]


def test_back_returns_to_where_one_was(tab, report):
    at(tab, report, "#/runs")
    tab.do("scrollTo(0, 150)")
    tab.until("history.state && history.state.y === 150")
    tab.do(f"document.querySelector('.now a[href=\"#/run/{reported.VLAE}\"]').click()")
    tab.until(f"{SHOWN}[0] === '/run/{reported.VLAE}'")
    assert tab.do("scrollY") == 0
    tab.do("history.back()")
    tab.until(f"{SHOWN}[0] === '/runs' && scrollY === 150")


def test_all_images_load_and_nothing_is_requested(tab, report):
    tab.go("about:blank")
    tab.requests.clear()
    for route in ROUTES:
        at(tab, report, route)
    broken = "[...document.images].filter((i) => !(i.complete && i.naturalWidth > 0)).length"
    assert tab.do(f"[document.images.length > 5, {broken}]") == [True, 0]
    assert {url.partition(":")[0] for url in tab.requests} <= {"data", "file", "about"}
    assert {url for url in tab.requests if url.startswith("file:")} == {report.as_uri()}
    at(tab, report, f"#/run/{reported.VLAE}")
    cell = "getComputedStyle(document.querySelector('.now .cell'))"
    assert tab.do(f"{cell}.backgroundImage.startsWith('url(\"data:image/png')")
    assert tab.do(f"{cell}.width") == "56px"  # 28 pixels, twice as large


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_sticks_out(tab, report, width, scheme):
    tab.size(width, scheme=scheme)
    for route in ROUTES:
        at(tab, report, route)
        wide = tab.do("[document.documentElement.scrollWidth, innerWidth]")
        assert wide == [width, width], route


def test_both_colour_schemes_have_contrast(tab, report):
    at(tab, report, f"#/run/{reported.VLAE}")
    script = """(() => {
      const style = getComputedStyle(document.body);
      const numbers = (colour) => colour.match(/\\d+/g).slice(0, 3).map(Number);
      return [style.backgroundColor, style.color].map(numbers);
    })()"""
    for scheme, dark in (("light", False), ("dark", True)):
        tab.size(1400, scheme=scheme)
        ground, ink = (sum(colour) for colour in tab.do(script))
        assert abs(ground - ink) > 500 and (ground < ink) == dark
        kind = "getComputedStyle(document.querySelector('.now .swatch')).backgroundColor"
        assert tab.do(kind) == ("rgb(89, 163, 205)" if dark else "rgb(0, 114, 178)")


def column(tab, place):
    return tab.do(
        "[...document.querySelectorAll('.now tbody tr:not(.group)')]"
        f".map((row) => row.cells[{place}].textContent.trim())"
    )


def test_a_table_is_sorted_by_a_click_and_by_a_key(tab, report):
    at(tab, report, "#/runs")
    before = column(tab, 3)
    heading = "document.querySelectorAll('.now thead th')[3]"
    assert tab.do(f"{heading}.getAttribute('aria-sort')") == "none"
    tab.do(f"{heading}.querySelector('button').click()")
    assert tab.do(f"{heading}.getAttribute('aria-sort')") == "ascending"
    values = [float(text.split()[0]) for text in column(tab, 3) if text]
    assert values == sorted(values) and column(tab, 3)[-1] == ""  # not evaluated: last
    tab.do(f"{heading}.querySelector('button').focus()")
    tab.press("Enter", 13, "\r")
    assert tab.do(f"{heading}.getAttribute('aria-sort')") == "descending"
    values = [float(text.split()[0]) for text in column(tab, 3) if text]
    assert values == sorted(values, reverse=True) and column(tab, 3)[-1] == ""
    tab.press(" ", 32, " ")
    assert tab.do(f"{heading}.getAttribute('aria-sort')") == "none"
    assert column(tab, 3) == before


def test_rows_stay_in_their_group(tab, report):
    at(tab, report, "#/")
    table = "document.getElementById('/table/headline')"
    groups = f"[...{table}.querySelectorAll('tbody')].map((one) => one.rows.length)"
    names = f"[...{table}.querySelectorAll('tbody')].map((one) => one.rows[0].textContent.trim())"
    before = tab.do(groups), tab.do(names)
    tab.do(f"{table}.querySelectorAll('thead button')[3].click()")
    assert (tab.do(groups), tab.do(names)) == before


def test_test_images_are_sorted_by_any_value(tab, report):
    at(tab, report, f"#/run/{reported.VLAE}")
    buttons = tab.do(
        "[...document.querySelectorAll('.now .sorts button')].map((b) => b.textContent)"
    )
    assert buttons == ["Place in the test set", "NLL", "KL", "Effective samples"]
    for place, key in enumerate(("index", "nll", "kl", "ess")):
        values = (
            f"[...document.querySelectorAll('.now .explorer li')].map((i) => +i.dataset.{key})"
        )
        press = f"document.querySelectorAll('.now .sorts button')[{place}].click()"
        if key != "index":  # it is in this order
            tab.do(press)
        assert tab.do(values) == sorted(tab.do(values))
        tab.do(press)
        assert tab.do(values) == sorted(tab.do(values), reverse=True)
        pressed = "[...document.querySelectorAll('.now .sorts [aria-pressed=true]')].length"
        assert tab.do(pressed) == 1


def test_what_has_no_value_is_last_in_either_order(tab, report):
    at(tab, report, f"#/run/{reported.COLOUR}")
    for _ in range(2):
        tab.do("document.querySelectorAll('.now .sorts button')[4].click()")
        values = tab.do(
            "[...document.querySelectorAll('.now .explorer li')].map((i) => i.dataset.khat || '')"
        )
        assert values[-2:] == ["", ""] and "" not in values[:-2]
        assert abs(float(values[0]) - float(values[-3])) > 0.8


def test_a_test_image_is_enlarged_with_its_place_in_the_distribution(tab, report):
    at(tab, report, f"#/run/{reported.VLAE}")
    tab.do("document.querySelectorAll('.now .card')[4].click()")
    assert tab.do("document.getElementById('look').open")
    assert tab.do("document.getElementById('look-title').textContent") == "Test image 12"
    assert tab.do("document.querySelectorAll('#look .cell').length") == 2
    shown = tab.do("document.querySelector('#look dd').textContent")
    nll = tab.do("document.querySelectorAll('.now .explorer li')[4].dataset.nll")
    assert shown == f"{nll} nats"
    assert tab.do("document.querySelector('#look .mark').classList.contains('seen')")
    tab.press("ArrowRight", 39)
    assert tab.do("document.getElementById('look-title').textContent") == "Test image 15"
    tab.press("Escape", 27)
    settle(tab)
    assert not tab.do("document.getElementById('look').open")
    assert tab.do("document.activeElement.closest('li').dataset.index") == "15"


def test_the_first_key_leads_to_the_content(tab, report):
    settle(tab)
    tab.press("Tab", 9)
    assert tab.do("document.activeElement.className") == "skip"
    assert tab.do("document.activeElement.getBoundingClientRect().left") == 0
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert tab.do(outline) == "solid"
    tab.press("Enter", 13, "\r")
    assert tab.do("document.activeElement.id") == "main"
    assert tab.do(SHOWN) == ["/"]


def test_everything_can_be_reached_by_keys(tab, report):
    at(tab, report, f"#/run/{reported.VLAE}")
    unreached = """[...document.querySelectorAll('.now :is(a, button, summary, .scroll)')]
      .filter((one) => one.checkVisibility() && one.tabIndex < 0).length"""
    assert tab.do(unreached) == 0


def test_without_scripts_everything_stands_on_one_page(tab, report):
    tab.size(400, scripts=False)
    tab.go("about:blank")
    tab.open(report, "#/runs")
    assert tab.do("document.querySelectorAll('thead button, .sorts').length") == 0
    hidden = "[...document.querySelectorAll('.page')].filter((p) => !p.checkVisibility()).length"
    assert tab.do(hidden) == 0
    tab.until("Math.abs(document.getElementById('/runs').getBoundingClientRect().top) < 100")
    assert tab.do("document.documentElement.scrollWidth") == 400
