"""The site in a headless Chromium, from a folder and from the server."""

import re
from pathlib import Path

import pytest

from bench.synthetic.atlas import write_synthetic_atlas
from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.artifacts import NEURON_TYPES, read_table
from tests.tasks.report.site.browsing import Visit, chromium, served
from tests.tasks.report.site.reading import neuron, numbers, value, write

pytestmark = pytest.mark.browser
HERE = Path(__file__).parent
NAMELESS = (HERE / "nameless.js").read_text()
"""Gives the elements that a screen reader would find no words for."""
FAINT = (HERE / "faint.js").read_text()
"""Gives the texts whose contrast with their ground is below 4.5, the least that WCAG 2 asks."""

ATTACK = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"onload=alert(3)' "
    "\N{LINE SEPARATOR}alert(4) \N{RIGHT-TO-LEFT OVERRIDE}txt.exe javascript:alert(5) ${alert(6)}"
)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def root(site):
    (site.parent / "index.html").write_text("<!doctype html><title>overview</title>")
    return site.parent


@pytest.fixture(scope="module", params=["folder", "server"])
def base(request, root):
    if request.param == "folder":
        yield f"{root.as_uri()}/"
    else:
        with served(root) as address:
            yield address


@pytest.fixture
def visit(browser, base):
    made = Visit(browser, base)
    yield made
    made.close()
    assert made.problems == []
    assert all(url.startswith((made.base, "data:")) for url in made.asked)


@pytest.fixture
def folder_visit(browser, root):
    made = Visit(browser, f"{root.as_uri()}/")
    yield made
    made.close()
    assert made.problems == []


def types(made):
    return [kind for files in made.layers for kind in _column(files["types"][0], "type")]


def _column(path, name):
    return read_table(path, NEURON_TYPES)[name].to_pylist()


def test_the_table_shows_every_neuron_and_filters_by_type(visit, made):
    visit.open()
    assert visit.count == "128 neurons"
    visit.page.click('[data-type="visual"]')
    wanted = types(made).count("visual")
    visit.expect_count(f"{wanted} of 128 neurons")
    assert set(visit.cells(2)) == {"visual"}
    assert "type=visual" in visit.page.url
    visit.page.click('[data-type="visual"]')
    visit.expect_count("128 neurons")


def test_filters_by_layer_score_status_and_words_and_a_link_keeps_them(visit, site):
    visit.open()
    visit.page.get_by_label("From layer").select_option("1")
    visit.expect_count("64 of 128 neurons")
    visit.page.get_by_label("Status").select_option("refused")
    visit.page.get_by_label("Status").select_option("scored")
    visit.page.get_by_label("Score from").fill("0.3")
    visit.page.get_by_role("searchbox").fill("image regions")
    visit.until("location.hash.includes('words=')")
    lines = value(site, "words/0/1").lower().split("\n")
    rows = _scores(site, 0, 1)
    wanted = sum(
        "image" in line and "regions" in line and score is not None and score >= 0.3
        for line, score in zip(lines, rows, strict=True)
    )
    assert 0 < wanted < 64
    visit.expect_count(f"{wanted} of 128 neurons")
    link = visit.page.url
    visit.page.goto("about:blank")
    visit.page.goto(link)
    visit.settled()
    visit.expect_count(f"{wanted} of 128 neurons")
    assert visit.page.get_by_label("Score from").input_value() == "0.3"
    assert visit.page.get_by_role("searchbox").input_value() == "image regions"
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.expect_count("128 neurons")


def test_every_word_must_be_there_in_any_order(folder_visit, site):
    visit = folder_visit.open()
    lines = [line for layer in (0, 1) for line in value(site, f"words/0/{layer}").split("\n")]
    one, other = "foreground", "image"
    both = sum(one in line.lower() and other in line.lower() for line in lines)
    assert 0 < both < sum(other in line.lower() for line in lines)
    for words in (f"{one} {other}", f"{other.upper()}   {one.capitalize()}"):
        visit.page.get_by_role("searchbox").fill(words)
        visit.expect_count(f"{both} of 128 neurons")


def test_a_phrase_is_found_only_as_it_stands(folder_visit, site):
    visit = folder_visit.open()
    line = next(line for line in value(site, "words/0/0").split("\n") if line)
    phrase = " ".join(line.split()[3:6])
    backwards = " ".join(reversed(phrase.split()))
    visit.page.get_by_role("searchbox").fill(f'"{phrase}"')
    visit.until_filtered()
    assert all(phrase.lower() in words.lower() for words in visit.cells(3))
    visit.page.get_by_role("searchbox").fill(f'"{backwards}"')
    visit.expect_count("0 of 128 neurons")
    assert visit.page.get_by_text("No neuron is left by these filters.").is_visible()


def _scores(site, pair, layer):
    kept = numbers(value(site, f"scores/{pair}/{layer}")["correlation"], "<i2")
    return [None if number == -32768 else number / 10_000 for number in kept]


def test_every_column_sorts_and_what_has_no_number_comes_last(folder_visit, site):
    visit = folder_visit.open("#/neurons?sort=-score")
    scores = [_number(text) for text in visit.cells(4)]
    assert scores == sorted(scores, reverse=True)
    best = max(one for layer in (0, 1) for one in _scores(site, 0, layer) if one is not None)
    assert scores[0] == pytest.approx(best, abs=0.006)
    for head in ("Type", "Explanation", "Score", "Control", "Margin", "Exemplars", "Highest"):
        button = visit.page.get_by_role("button", name=head, exact=True)
        button.click()
        visit.settled()
        column = visit.page.locator(".head [aria-sort]:not([aria-sort=none])")
        assert column.inner_text().strip() == head
    for down, order in (("", "ascending"), ("-", "descending")):
        visit.open("#/neurons").page.goto(f"{visit.base}site/index.html#/neurons?sort={down}score")
        visit.settled()
        visit.page.wait_for_selector(f'.head-score[aria-sort="{order}"]')
        visit.page.locator(".scroller").evaluate("box => { box.scrollTop = box.scrollHeight; }")
        visit.page.wait_for_selector('.row[aria-rowindex="129"]')
        assert visit.cells(4)[-1] == "\N{EN DASH}"


def _number(text):
    return float(text.split("\n")[0].replace("\N{MINUS SIGN}", "-"))


def test_a_neuron_shows_what_is_known_and_next_follows_the_filter(visit, site):
    visit.open("#/neurons?type=text&sort=-score")
    order = [words.replace("\n", "") for words in visit.cells(1)]
    visit.page.locator(".row a").first.click()
    visit.settled()
    layer, index = map(int, order[0].split(":"))
    details = neuron(site, layer, index)
    page = visit.page
    assert page.locator("h1").inner_text() == f"Layer {layer} Neuron {index}"
    assert page.locator("blockquote").inner_text() == details["explanations"][0]["text"]
    page.wait_for_selector(".exemplars canvas.heat")
    visit.until_filled()
    assert page.locator(".exemplars > figure").count() == len(details["exemplars"])
    assert page.locator(".pairs > figure").count() == len(details["held_out"]["samples"])
    assert page.locator(".pairs > figure").first.locator("canvas").count() == 2
    assert page.locator(".histogram rect").count() > 10
    assert re.search(r"^1 of \d+ found$", page.locator("#place").inner_text())
    page.get_by_role("link", name="Next").click()
    visit.expect_neuron(*order[1].split(":"))
    page.get_by_role("link", name="Previous").click()
    visit.expect_neuron(layer, index)
    page.reload()
    visit.settled()
    assert page.locator("h1").inner_text() == f"Layer {layer} Neuron {index}"


def test_the_heat_map_and_the_frame_are_where_the_activation_is(folder_visit, site):
    details = neuron(site, 0, 10)
    visit = folder_visit.open("#/neuron/0:10")
    visit.until_filled()
    bytes_ = numbers(details["exemplars"][0][3], "u1")
    pixels = visit.page.locator(".exemplars canvas").first.evaluate(
        "canvas => [canvas.width, canvas.height, "
        "...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    heat = value(site, "index")["heat"]
    assert pixels[:2] == [4, 4]
    drawn = [pixels[2 + at * 4 : 6 + at * 4] for at in range(16)]
    for pixel, byte in zip(drawn, bytes_, strict=True):
        # A canvas keeps colors multiplied by their opacity, so a step or two is lost.
        assert pixel == pytest.approx(heat[byte], abs=3)
    label = visit.page.locator(".exemplars canvas").first.get_attribute("aria-label")
    row, column = divmod(int(bytes_.argmax()), 4)
    assert f"in row {row + 1}, column {column + 1}" in label


def test_explainers_take_turns_by_mouse_and_by_arrow_keys(visit, site):
    details = neuron(site, 0, 9)
    visit.open("#/neuron/0:9")
    page = visit.page
    said = [one["text"] for one in details["explanations"]]
    assert page.get_by_role("tab", selected=True).inner_text() == "gpt4o"
    assert page.locator("blockquote").inner_text() == said[0]
    page.get_by_role("tab", name="dissect").click()
    assert page.locator("blockquote").inner_text() == said[1]
    assert "by=dissect/chat" in page.url
    page.keyboard.press("ArrowLeft")
    assert page.locator("blockquote").inner_text() == said[0]
    assert page.evaluate("document.activeElement.textContent") == "gpt4o"


def test_all_of_it_can_be_done_with_the_keyboard_alone(visit):
    visit.open()
    page = visit.page
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("image")
    visit.until_filtered()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    chosen = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert page.evaluate("document.activeElement.closest('.row').dataset.position") == "2"
    page.keyboard.press("Enter")
    visit.settled()
    page.wait_for_selector(".one")
    heading = page.evaluate("document.activeElement.textContent")
    assert heading.lower() == chosen.replace(",", "").lower()
    page.wait_for_selector("a.step[href] >> nth=1")
    page.keyboard.press("ArrowRight")
    visit.until(f"document.querySelector('h1').textContent !== {heading!r}")
    page.keyboard.press("h")
    assert page.get_by_role("button", name="Heat maps").get_attribute("aria-pressed") == "false"
    page.keyboard.press("Escape")
    page.wait_for_selector(".finder")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.closest('.scroller') !== null")


def test_back_leads_to_the_same_place_in_the_table(folder_visit):
    visit = folder_visit.open()
    page = visit.page
    page.locator(".scroller").evaluate("box => { box.scrollTop = 2600; }")
    page.wait_for_selector('.row[data-position="55"]')
    page.locator('.row[data-position="55"] a').click()
    page.wait_for_selector(".one")
    page.go_back()
    page.wait_for_selector('.row[data-position="55"]')
    assert page.locator(".scroller").evaluate("box => box.scrollTop") == 2600


def test_the_count_is_announced_and_everything_has_a_name(folder_visit):
    visit = folder_visit.open()
    page = visit.page
    assert page.locator("#announcement").get_attribute("aria-live") == "polite"
    assert page.locator("#announcement").inner_text() == "128 neurons"
    page.click('[data-type="text"]')
    visit.until("/of 128/.test(document.getElementById('announcement').textContent)")
    for view in ("#/neurons", "#/neuron/0:9"):
        visit.open(view)
        visit.until_filled()
        assert page.evaluate(NAMELESS) == []
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
        assert levels.count(1) == 1
        assert levels[0] == 1
    visit.open()
    grid = page.get_by_role("table", name="Neurons")
    assert grid.get_attribute("aria-rowcount") == "129"
    row = grid.get_by_role("row").nth(1)
    assert row.get_by_role("cell").count() + row.get_by_role("rowheader").count() == 9
    assert grid.get_by_role("columnheader").count() == 9


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground_in_light_and_dark(browser, root, scheme):
    visit = Visit(browser, f"{root.as_uri()}/", color_scheme=scheme)
    for view in ("#/neurons?type=text", "#/neuron/0:9", "#/neuron/0:12", "#/neuron/1:3"):
        visit.open(view)
        visit.until_filled()
        faint = visit.page.evaluate(FAINT)
        assert faint == [], view
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 200) == (scheme == "dark")
    visit.close()
    assert visit.problems == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(browser, root, width):
    visit = Visit(browser, f"{root.as_uri()}/", viewport={"width": width, "height": 844})
    for view in ("#/neurons", "#/neuron/0:9"):
        visit.open(view)
        visit.until_filled()
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    visit.close()


def test_text_of_models_and_datasets_stays_text(browser, tmp_path):
    tokens = list(ATTACK)
    sizes = Sizes(layers=(0,), neurons=8, samples=6)
    made = write_synthetic_atlas(
        tmp_path, sizes, [ATTACK, "gpt4o"], lambda _: ATTACK + " x" * 60_000, tokens
    )
    site = write(made, tmp_path / "report" / "site", title=ATTACK)
    visit = Visit(browser, f"{site.parent.as_uri()}/")
    page = visit.page
    visit.open("#/neurons?words=alert")
    assert visit.count == "7 of 8 neurons"
    assert visit.cells(3)[0].startswith("</script><script>alert(1)</script><img src=x")
    visit.open("#/neuron/0:3")
    visit.until_filled()
    # The page may not be drawn yet, and the table has a details element too.
    page.wait_for_function(
        """() => {
          const whole = document.querySelector('.exemplars details');
          if (whole) whole.open = true;
          return whole && whole.querySelector('.token-text');
        }"""
    )
    assert page.locator("blockquote").inner_text().startswith("</script><script>alert(1)")
    assert page.locator("blockquote").get_attribute("dir") == "auto"
    assert page.locator(".exemplars details .token-text").first.inner_text().startswith("</script>")
    assert "<script>alert(1)</script>" in page.title()
    assert (
        page.evaluate("document.querySelectorAll('main img:not(.seen), main script').length") == 0
    )
    scripts = page.evaluate("[...document.scripts].map(one => one.getAttribute('src'))")
    assert all(source.startswith(("app/", "data/")) for source in scripts)
    visit.close()
    assert visit.problems == []


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ("#/neuron/0:64", "This atlas has no neuron 64 in layer 0."),
        ("#/neuron/7:1", "This atlas has no layer 7."),
    ],
)
def test_a_link_to_what_is_not_there_says_so(folder_visit, view, said):
    folder_visit.open(view)
    assert folder_visit.page.locator(".empty").inner_text() == said


def test_a_file_that_is_missing_is_told_and_the_rest_still_works(browser, made, tmp_path):
    site = write(made, tmp_path / "report" / "site")
    (site / "data" / "neurons" / "0" / "0.js").unlink()
    visit = Visit(browser, f"{site.parent.as_uri()}/")
    visit.open("#/neuron/0:3")
    assert visit.page.locator(".empty").inner_text() == "Data/neurons/0/0.js could not be read."
    visit.open("#/neurons")
    assert visit.count == "128 neurons"
    (site / "data" / "table" / "1.js").write_text("no script")
    fresh = Visit(browser, f"{site.parent.as_uri()}/")
    fresh.page.goto(f"{fresh.base}site/index.html")
    fresh.page.get_by_text(
        "The table cannot be shown: data/table/1.js could not be read."
    ).wait_for()
    for one in (visit, fresh):
        one.close()


def test_an_unknown_address_opens_the_table(folder_visit):
    visit = folder_visit.open("#/nonsense?type=odd&layer=x-y&score=a..b&sort=up&by=nobody")
    assert visit.count == "128 neurons"


def test_a_pointer_that_was_pressed_elsewhere_or_taken_away_filters_nothing(folder_visit):
    page = folder_visit.open().page
    strip = page.locator("svg.strip").nth(1)
    box = strip.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(5, 400)
    page.mouse.down()
    page.mouse.move(*middle)
    page.mouse.up()
    page.mouse.down()
    strip.dispatch_event("pointercancel")
    page.mouse.up()
    page.wait_for_timeout(200)
    assert folder_visit.count == "128 neurons"
    assert "score=" not in page.url
    page.mouse.down()
    page.mouse.move(middle[0] + box["width"] / 4, middle[1])
    page.mouse.up()
    folder_visit.until("location.hash.includes('score=0..')")


def test_a_layer_that_was_not_searched_is_shown_as_unknown_and_not_as_empty(folder_visit):
    visit = folder_visit.open("#/neurons?layer=1&words=image")
    visit.until_filtered()
    strip = visit.page.locator("svg.strip").first
    assert strip.locator(".unread").count() == 1
    assert strip.get_attribute("aria-label").endswith(", 1 of 2 layers not searched")
    visit.page.get_by_label("From layer").select_option("0")
    visit.until("document.querySelectorAll('.strip .unread').length", 0)
    assert "searched" not in strip.get_attribute("aria-label")


def test_every_order_that_an_address_can_ask_for_can_be_chosen(folder_visit):
    page = folder_visit.open().page
    offered = page.locator(".order option").evaluate_all("all => all.map(one => one.value)")
    orders = page.evaluate("Atlas.SORTS")
    assert sorted(offered) == sorted([*orders, *(f"-{order}" for order in orders)])


def test_what_is_announced_of_a_neuron_is_what_its_page_shows(folder_visit, site):
    index = value(site, "index")
    table = value(site, "table/0")
    paper, tested = (
        [names[code] for code in numbers(table[column], "u1")]
        for column, names in (("type", index["types"]), ("tested", index["tested_types"]))
    )
    differs = next(at for at in range(64) if paper[at] != tested[at])
    page = folder_visit.open(f"#/neuron/0:{differs}?rule=tested").page
    said = page.locator("#announcement").inner_text()
    assert page.locator(".chip").first.inner_text() == paper[differs]
    assert said == f"Layer 0, neuron {differs}, {paper[differs]}, by tests {tested[differs]}"
    folder_visit.page.goto("about:blank")
    folder_visit.open(f"#/neuron/0:{differs}")
    assert (
        page.locator("#announcement").inner_text() == f"Layer 0, neuron {differs}, {paper[differs]}"
    )


def test_a_score_has_its_verdict_and_the_keyboard_reaches_what_a_term_means(folder_visit, site):
    glossary = value(site, "index")["glossary"]
    index, (word, numbers_) = next(
        (index, score["verdict"])
        for index in range(1, 64)
        for pair in neuron(site, 0, index)["explanations"][:1]
        for score in pair["scores"]
        if "verdict" in score
    )
    page = folder_visit.open(f"#/neuron/0:{index}").page
    verdict = page.locator(".verdict")
    assert verdict.inner_text() == f"{word}: {numbers_}"
    term = verdict.locator("abbr")
    assert term.get_attribute("title") == glossary[word]
    assert term.evaluate("one => getComputedStyle(one, '::after').content") == "none"
    term.focus()
    shown = term.evaluate("one => getComputedStyle(one, '::after').content")
    assert glossary[word] in shown
    folder_visit.open("#/neurons")
    cell = page.locator(f'.row[data-position="{index}"] .score-cell')
    assert cell.inner_text().split()[1] == word
    assert glossary["margin"] in page.locator(".head-margin button").get_attribute("title")
