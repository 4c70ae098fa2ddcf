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
# A page has hundreds of texts of one colour, size and weight on one ground: two of each are judged.
COLORS = """
    (() => {
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
      const chosen = [...looks.values()].flatMap((each) => [...each]);
      return [chosen, {runOnly: ["color-contrast", "link-in-text-block"]}];
    })()
"""


def prepare(driver: WebDriver) -> None:
    """Opens what is folded, stops transitions, empties pictures and gives the page axe-core.

    A colour on its way from one theme to the other is neither's. A formula and a figure are one
    picture each to whoever cannot see them, but thousands of elements to axe-core.
    """
    driver.execute_script(
        """
        for (const each of document.querySelectorAll("details")) each.open = true;
        const still = document.createElement("style");
        still.textContent = "* { transition: none !important; }";
        document.head.append(still);
        for (const each of document.querySelectorAll("mjx-container > svg, .sami-plot svg"))
          each.replaceChildren();
        """
    )
    Axe(driver).inject()


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
