"""The demo as people see it, in a real browser: the score shown is the one programs get."""

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason='needs the extra "demo"')
if importlib.util.find_spec("selenium") is None:
    pytest.skip("selenium is not installed", allow_module_level=True)
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

from gradio_client import Client, handle_file  # noqa: E402
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

from pfd_iqa_hf.demo.assess import Assessor  # noqa: E402
from pfd_iqa_hf.demo.serving import running  # noqa: E402

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--window-size=1120,1200"
).split()


@pytest.fixture(scope="module")
def address(tiny_checkpoint: Path) -> Iterator[str]:
    assessor = Assessor(str(tiny_checkpoint), "cpu")
    with running(assessor) as address:
        yield address
    assessor.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def wait(condition: Callable[[], Any], seconds: float = 40) -> Any:
    """What `condition` gives as soon as it gives something."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "the page did not change"
        time.sleep(0.1)
    return found


class Page:
    """The demo in a browser."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser = browser
        browser.get(address)
        wait(lambda: self.all("input[type=file]"))

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        script = "return document.querySelector(arguments[0])?.textContent || ''"
        return str(self.browser.execute_script(script, selector))

    def value(self, selector: str, name: str) -> str | None:
        script = "return document.querySelector(arguments[0])?.getAttribute(arguments[1])"
        found = self.browser.execute_script(script, selector, name)
        return None if found is None else str(found)

    def resources(self) -> list[str]:
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        return list(self.browser.execute_script(script))

    def upload(self, place: int, *paths: Path) -> None:
        # A tab's inputs appear one after the other: the one meant may not stand there yet.
        inputs = wait(lambda: found if len(found := self.all("input[type=file]")) > place else None)
        inputs[place].send_keys("\n".join(str(path) for path in paths))

    def tab(self, place: int) -> None:
        inputs = len(self.all("input[type=file]"))
        self.all("button[role=tab]")[place].click()
        wait(lambda: len(self.all("input[type=file]")) > inputs)


@pytest.mark.parametrize("name", ["turned.jpg", "sixteen.png", "cmyk.jpg"])
def test_the_score_shown_is_the_programs_score(
    browser: webdriver.Chrome, address: str, odd_pictures: dict[str, Path], name: str
) -> None:
    page = Page(browser, address)
    page.upload(0, odd_pictures[name])
    shown = float(wait(lambda: page.value("#score [data-score]", "data-score")))
    record = Client(address, verbose=False).predict(
        handle_file(str(odd_pictures[name])), api_name="/assess"
    )
    assert abs(shown - record["score"]) < 0.01
    assert f"{record['score']:.1f}" in page.text("#score .pfd-number")
    assert page.text("#score .pfd-band") == record["label"]
    assert record["label"] in str(page.value("#score svg", "aria-label"))
    assert f"{record['width']} × {record['height']}" in page.text("#score .pfd-file")
    assert len(page.all("#score .pfd-columns .pfd-bars")) == 2 and name in page.text("#score")


def test_the_slider_fades_the_map_without_the_server(
    browser: webdriver.Chrome, address: str, odd_pictures: dict[str, Path], tmp_path: Path
) -> None:
    page = Page(browser, address)
    wild = tmp_path / "{{#each}} ${1 + 1} & é.jpg"
    wild.write_bytes(odd_pictures["plain.jpg"].read_bytes())
    page.upload(0, wild)
    wait(lambda: page.all("#map .pfd-map"))
    assert wild.name in page.text("#score .pfd-file")
    shown = "return getComputedStyle(document.querySelector('#map .pfd-map')).opacity"
    assert float(browser.execute_script(shown)) == pytest.approx(0.5)
    calls = [entry for entry in page.resources() if "gradio_api" in entry]
    for strength in (0, 80):
        browser.execute_script(
            "const slider = document.querySelector('#map input'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input', {bubbles: true}))",
            strength,
        )
        assert float(browser.execute_script(shown)) == pytest.approx(strength / 100)
        assert page.text("#map output") == f"{strength} %"
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('#map .pfd-stack img')].map("
        "i => [i.naturalWidth > 0, i.offsetWidth, i.offsetHeight])"
    )
    assert sizes[0] == sizes[1] and sizes[0][0] and sizes[0][1] > 200, "the map covers the picture"
    assert [entry for entry in page.resources() if "gradio_api" in entry] == calls


def test_a_broken_file_is_told_where_its_score_would_stand(
    browser: webdriver.Chrome, address: str, broken_pictures: dict[str, tuple[Path, str]]
) -> None:
    page = Page(browser, address)
    page.upload(0, broken_pictures["text.jpg"][0])
    told = wait(lambda: page.text("#score [role=alert]"))
    assert "text.jpg cannot be scored" in told and "not a picture" in told
    assert "What to do: convert it to JPEG or PNG" in told and not page.all("#map .pfd-map")


def test_two_pictures_and_many(
    browser: webdriver.Chrome,
    address: str,
    odd_pictures: dict[str, Path],
    broken_pictures: dict[str, tuple[Path, str]],
) -> None:
    page = Page(browser, address)
    page.tab(1)
    a, b = odd_pictures["plain.jpg"], odd_pictures["white.png"]
    page.upload(1, a)
    page.upload(2, b)
    shown = float(wait(lambda: page.value("#verdict [data-probability]", "data-probability")))
    client = Client(address, verbose=False)
    ranking = client.predict(handle_file(str(a)), handle_file(str(b)), api_name="/compare")[
        "ranking"
    ]
    assert shown == pytest.approx(ranking[0]["better_than_next"], abs=1e-3)
    winner = "A" if ranking[0]["name"] == a.name else "B"
    assert page.text("#verdict .pfd-verdict").startswith(f"Picture {winner} ")

    page.tab(2)
    page.upload(3, a, broken_pictures["text.jpg"][0], b)
    rows = wait(lambda: page.all("#many tbody tr"))
    assert len(rows) == 3 and "not a picture" in rows[2].text and "text.jpg" in rows[2].text
    worst = [
        page.value(f"#many tr:nth-child({place})[data-score]", "data-score") for place in (1, 2)
    ]
    assert float(str(worst[0])) < float(str(worst[1]))
    page.all("input[type=radio][value=best]")[-1].click()
    wait(lambda: "best first" in page.text("#many"))
    best = [
        page.value(f"#many tr:nth-child({place})[data-score]", "data-score") for place in (1, 2)
    ]
    assert best == worst[::-1]


def test_nothing_is_loaded_from_elsewhere(browser: webdriver.Chrome, address: str) -> None:
    page = Page(browser, address)
    loaded = page.resources()
    assert len(loaded) > 5
    assert [entry for entry in loaded if not entry.startswith((address, "data:", "blob:"))] == []
    assert str(browser.title).startswith("PFD-IQA")
