"""The page in a real browser: nothing on the console, nothing from the network, and what can be clicked works."""

from __future__ import annotations

import pytest
from browser import Browser, program  # type: ignore[import-not-found]
from synthetic_run import make_run  # type: ignore[import-not-found]

from hpcgen.report.data import collect
from hpcgen.report.page import render
from hpcgen.report.phases import Competitors

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium on this machine (it is not part of the setup)")
SIZES = {"desktop": (1280, 900), "phone": (390, 844), "small phone": (320, 568)}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """index.html of a run with hostile text in it."""
    folder = tmp_path_factory.mktemp("run")
    data = collect(folder, make_run(folder, hostile=True))
    crystals = [r.stability for r in data.rows]
    file = folder / "index.html"
    file.write_text(render(data, Competitors(folder / "reference.h5", crystals, crystals)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser():
    with Browser(program()) as b:
        yield b


@pytest.fixture(autouse=True)
def quiet(browser, page):
    """Whatever a test does: no message, and no request but for the page itself."""
    browser.errors.clear()
    browser.requests.clear()
    yield
    assert browser.errors == []
    assert {url.split("#")[0] for url in browser.requests} == {page.as_uri()}


@pytest.mark.parametrize("size", SIZES)
def test_fits_the_window_and_draws_every_visible_crystal(browser, page, size):
    browser.open(page, *SIZES[size])
    assert browser.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    drawn = browser.evaluate(
        """Array.from(document.querySelectorAll('canvas')).filter(c => c.clientWidth).map(c =>
            new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)"""
    )
    assert len(drawn) == 12
    assert min(drawn) > 20  # shades


def test_a_crystal_turns_by_mouse_and_by_keys(browser, page):
    browser.open(page, 1280, 900)
    picture = "document.querySelector('canvas').toDataURL()"
    before = browser.evaluate(picture)
    browser.evaluate("document.querySelector('canvas').scrollIntoView({behavior: 'instant', block: 'center'})")
    x, y = browser.evaluate(
        "(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector('canvas').getBoundingClientRect())"
    )
    for kind, dx in (("mousePressed", 0), ("mouseMoved", 40), ("mouseReleased", 40)):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x + dx, y=y, button="left", buttons=1, clickCount=1)
    turned = browser.evaluate(picture)
    assert turned != before
    browser.evaluate("document.querySelector('canvas').focus({preventScroll: true})")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowUp", code="ArrowUp")
    assert browser.evaluate(picture) != turned


def test_the_table_sorts_and_filters(browser, page):
    browser.open(page, 1280, 900)
    shown = "Array.from(document.querySelectorAll('#survivors tbody tr')).filter(r => !r.hidden)"
    energies = f"{shown}.map(r => Number(r.dataset.energy))"
    values = browser.evaluate(energies)
    header = (
        "Array.from(document.querySelectorAll('#survivors thead button')).find(b => b.textContent.startsWith('{}'))"
    )
    browser.evaluate(f"({header.format('E')}).click()")
    assert browser.evaluate(energies) == sorted(values)
    browser.evaluate(f"({header.format('E')}).click()")
    assert browser.evaluate(energies) == sorted(values, reverse=True)
    browser.evaluate(
        "(e => { e.value = '0.1'; e.dispatchEvent(new Event('input')); })(document.getElementById('max-energy'))"
    )
    few = browser.evaluate(energies)
    assert sorted(few) == sorted(v for v in values if v <= 0.1)
    browser.evaluate("document.querySelector('input.flag[value=novel]').click()")
    assert len(browser.evaluate(energies)) == len(few) - 1
    browser.evaluate(
        "(e => { e.value = 'pm-3m'; e.dispatchEvent(new Event('input')); })(document.getElementById('find'))"
    )
    words = browser.evaluate(f"{shown}.map(r => r.textContent.toLowerCase())")
    assert all("pm-3m" in w for w in words)


def test_cards_open_by_button_by_link_and_in_print(browser, page):
    browser.open(page, 1280, 900)
    visible = "Array.from(document.querySelectorAll('.detail')).filter(d => d.offsetHeight > 0).length"
    assert browser.evaluate(visible) == 0
    browser.evaluate("document.querySelector('button.open').click()")
    assert browser.evaluate(visible) == 1
    browser.evaluate("document.getElementById('details').click()")
    assert browser.evaluate(visible) == 12
    browser.open(page, 1280, 900, fragment="#c13")  # beyond the first dozen
    assert browser.evaluate("document.querySelector('#c13 .detail').offsetHeight") > 0
    browser.open(page, 794, 1000)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(visible) == 12
    assert browser.evaluate("document.querySelector('.controls').offsetHeight") == 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= 794
    browser.call("Emulation.setEmulatedMedia", media="")


def test_prints_to_pages(browser, page, tmp_path):
    browser.open(page, 1280, 900)
    browser.pdf(tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= content.count(b"/Type /Page\n") <= 12
