"""What axe-core finds on the page that a browser shows.

axe-core is the accessibility checker of browsers' own tools; the package brings its script along.
"""

from __future__ import annotations

from selenium.webdriver.remote.webdriver import WebDriver
from selenium_axe_python import Axe

SERIOUS = ("serious", "critical")

# All rules but the two on colours: those take long for each element.
ALL_BUT_COLORS = """
    [document, {rules: {
      "color-contrast": {enabled: false}, "link-in-text-block": {enabled: false},
    }}]
"""
# Rules whose answer depends on how wide the screen is: what scrolls, and what a menu hides.
NARROW = """
    [document, {runOnly: [
      "scrollable-region-focusable", "aria-hidden-focus", "button-name", "link-name",
    ]}]
"""
# The two rules on colours, for the texts that `mark_texts` has chosen.
COLORS = """
    [[...document.querySelectorAll("[data-judged]")], {
      runOnly: ["color-contrast", "link-in-text-block"],
    }]
"""


def prepare(driver: WebDriver) -> None:
    """Opens what is folded, stops transitions, empties pictures and gives the page axe-core.

    A colour on its way from one theme to the other is neither's. A figure is one picture to
    whoever cannot see it (role "img"), and a formula one text, but they are thousands of elements
    to axe-core, which has no rule for what is inside.
    """
    driver.execute_script(
        """
        for (const each of document.querySelectorAll("details")) each.open = true;
        const still = document.createElement("style");
        still.textContent = "* { transition: none !important; }";
        document.head.append(still);
        for (const each of document.querySelectorAll("mjx-container > svg, .sami-plot svg"))
          each.replaceChildren();
        for (const each of document.querySelectorAll("mjx-assistive-mml > math"))
          each.replaceChildren(each.textContent);
        // An emptied figure would be drawn again in the other theme.
        if (window.Plotly) Plotly.react = async () => {};
        """
    )
    Axe(driver).inject()


def mark_texts(driver: WebDriver) -> None:
    """Marks two texts of each look in the present theme, on top of those that are marked.

    A page has hundreds of texts of one colour, size and weight on one ground: two are judged.
    """
    driver.execute_script(
        """
        const clear = "rgba(0, 0, 0, 0)";
        const behind = new Map([[null, ""]]);  // element -> grounds and opacities under its text
        const ground = (element) => {
          if (!behind.has(element)) {
            const {backgroundColor, backgroundImage, opacity} = getComputedStyle(element);
            const own = [
              backgroundColor === clear ? "" : backgroundColor,
              backgroundImage === "none" ? "" : backgroundImage,
              opacity === "1" ? "" : opacity,
            ].join("");
            const opaque = own.startsWith("rgb(") && own === backgroundColor;
            behind.set(element, opaque ? own : own + "/" + ground(element.parentElement));
          }
          return behind.get(element);
        };
        const looks = new Map();
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
          const element = texts.currentNode.parentElement;
          if (!texts.currentNode.data.trim()) continue;
          if (element.closest("script, style, noscript, svg, mjx-assistive-mml")) continue;
          if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
          const {width, height} = element.getBoundingClientRect();
          if (width < 2 || height < 2) continue;
          const {color, fontSize, fontWeight} = getComputedStyle(element);
          const look = [element.localName, color, fontSize, fontWeight, ground(element)].join();
          if (!looks.has(look)) looks.set(look, new Set());
          if (looks.get(look).size < 2) looks.get(look).add(element);
        }
        for (const chosen of looks.values())
          for (const each of chosen) each.dataset.judged = "";
        """
    )


def plain_code(driver: WebDriver) -> None:
    """Takes the unmarked colours out of code: spans with a class alone, most of a page's elements.

    No rule but those on colours knows them from the text around them.
    """
    driver.execute_script(
        """
        const isColor = (each) => [...each.attributes].every(({name}) => name === "class");
        for (const each of document.querySelectorAll("pre span"))
          if (isColor(each)) each.replaceWith(...each.childNodes);
        for (const each of document.querySelectorAll("pre")) each.normalize();
        """
    )


def leave_marked_texts(driver: WebDriver) -> None:
    """Drops the article's paragraphs, rows and cells without a marked text.

    What is behind a text is around it, or in the same block: both stay.
    """
    driver.execute_script(
        """
        const blocks = "section > :not(section), details > *, tr, li, dd, .sami-definition";
        for (const each of document.querySelectorAll(`.bd-article :is(${blocks})`))
          if (!each.matches("[data-judged]") && !each.querySelector("[data-judged]")) each.remove();
        """
    )


def violations(driver: WebDriver, context_and_options: str) -> list[str]:
    """Serious and critical violations: the rule, the element, and its markup."""
    found = driver.execute_async_script(
        f"""
        const done = arguments[0];
        const [context, options] = {context_and_options.strip()};
        axe.run(context, {{...options, resultTypes: ["violations"]}}).then(
          ({{violations}}) => done(violations), (error) => done(String(error)));
        """
    )
    if isinstance(found, str):
        raise RuntimeError(f"axe-core stopped: {found}")
    return [
        f"{each['id']}: {node['target']} {node['html'][:120]}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]
