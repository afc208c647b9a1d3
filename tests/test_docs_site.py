"""The documentation site: every page has its place, and nothing is loaded from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import mermaid_svg
from miniature import PROJECT

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
ELSEWHERE = re.compile(r"(https?:)?//")


def build(folder, config=PROJECT / "mkdocs.yml"):
    command = [sys.executable, "-m", "mkdocs", "build", "-f", config, "-d", folder]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=PROJECT, env=env, text=True, capture_output=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


class Loaded(HTMLParser):
    """What a browser loads when it opens a page (not what it links to)."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in LOADS and LOADS[tag] in attrs and attrs.get("rel") not in ("canonical", "prev"):
            self.found.append(attrs[LOADS[tag]])


def test_every_page_is_built_and_in_the_navigation(site):
    pages = [*PROJECT.glob("docs/*.md"), *PROJECT.glob("docs/*.ipynb")]
    pages += [*PROJECT.glob("results/tables/*.md"), *PROJECT.glob("results/cards/*.md")]
    places = {str(path.relative_to(PROJECT).with_suffix(".html")) for path in pages}
    navigation = (site / "index.html").read_text()
    assert len(places) > 20
    assert {place for place in places if not (site / place).exists()} == set()
    assert {place for place in places if f'href="{place}"' not in navigation} == set()


def test_nothing_is_loaded_from_elsewhere(site):
    pages = [*site.rglob("*.html")]
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert loaded.found and [it for it in loaded.found if ELSEWHERE.match(it)] == [], page
        if page.name != "404.html":  # its paths are those of a server
            local = [
                page.parent / it.partition("?")[0] for it in loaded.found if it[:5] != "data:"
            ]
            assert [it for it in local if not it.exists()] == []
        assert 'class="mermaid"' not in page.read_text()  # the theme would load a library for it
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text()), style


def test_the_library_page_has_signatures_and_docstrings(site):
    import vlae

    page = (site / "docs" / "api_library.html").read_text()
    for name in vlae.__all__:
        assert f'id="{getattr(vlae, name).__module__}.{name}"' in page, name
    assert "Draw <code>count</code> images from the model." in page


def test_the_tutorial_has_its_pictures(site):
    page = (site / "docs" / "tutorial.html").read_text()
    pictures = re.findall(r'src="(tutorial_files/[^"]*\.png)"', page)
    assert len(pictures) == 3 and "exact 5" in page


def test_a_page_without_a_place_and_a_place_without_a_page_fail_the_build(tmp_path):
    config = (PROJECT / "mkdocs.yml").read_text().replace("docs/dvc.md", "docs/gone.md")
    broken = PROJECT / "build" / "broken.yml"  # docs_dir and hooks are relative to it
    broken.parent.mkdir(exist_ok=True)
    config = config.replace("docs_dir: docs", "docs_dir: ../docs").replace("[tools/", "[../tools/")
    broken.write_text(config.replace("paths: [src]", "paths: [../src]"))
    done = build(tmp_path / "site", broken)
    broken.unlink()
    assert done.returncode != 0 and "docs/gone.md" in done.stderr and "docs/dvc.md" in done.stderr


def test_a_flowchart_has_its_boxes_arrows_and_labels():
    drawn = mermaid_svg.drawn('flowchart TD\n  a --> b --> c\n  a -- "<x>" --> c\n')
    assert [drawn.count(f">{name}<") for name in ("a", "b", "c", "&lt;x&gt;")] == [1, 1, 1, 1]
    assert drawn.count("marker-end") == 3 and drawn.count("<rect") == 3


@pytest.mark.parametrize("chart", ["pie\n a", "flowchart TD\n a --> b[B]", "flowchart TD\n a"])
def test_a_chart_of_another_kind_is_refused(chart):
    with pytest.raises(ValueError, match="Mermaid"):
        mermaid_svg.drawn(chart)
