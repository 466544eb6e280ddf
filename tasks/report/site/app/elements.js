"use strict";
/* Create elements and fill them with text. Nothing is parsed as markup, so texts from models and
   datasets stay text. */
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "vars") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  };

  /** h("p", {class: "quiet", onclick: f, vars: {"--a": 1}}, "text", element, [more]) */
  Atlas.h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  Atlas.svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  /** Return an element with text from a model or dataset, isolated in its own text direction. */
  Atlas.foreign = (tag, attributes, text) => Atlas.h(tag, { dir: "auto", ...attributes }, text);

  Atlas.swatch = (type) => Atlas.h("span", { class: `swatch type-${type}`, "aria-hidden": "true" });

  /** Return a term of the glossary with its meaning as hover text; the Tab key reaches it too. */
  Atlas.term = (name, text = name) => {
    const title = Atlas.index.glossary[name];
    if (!title) throw new Error(`no term ${name}`);
    return Atlas.h("abbr", { title, tabindex: "0" }, text);
  };

  /** Return the sentence that says what to look for in a figure. */
  Atlas.reading = (figure) => Atlas.h("p", { class: "guide" }, Atlas.index.reading[figure]);

  Atlas.announce = (message) => { document.getElementById("announcement").textContent = message; };
})();
