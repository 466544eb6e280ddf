"use strict";
/* The table of all neurons. Rows are created as they scroll into view. */
(() => {
  const { h } = Atlas;
  const OVERSCAN = 6, TALLEST = 8e6; // In pixels: browsers limit the height of an element.
  const HEADS = [
    ["neuron", "Neuron"], ["type", "Type"], ["words", "Explanation"], ["score", "Score"], ["control", "Control"],
    ["margin", "Margin"], ["share", "Exemplars"], ["meanings", "Alike"], ["peak", "Highest"],
  ];
  const EXTRA = { effect: "Effect", faithful: "Faithful" };
  const columnHeads = () => [...HEADS, ...Atlas.index.extra.map((key) => [key, EXTRA[key]])];
  const TERMS = { neuron: ["neuron", "layer"], type: ["type"], score: ["score", "verdict"], control: ["control"], margin: ["margin"], share: ["exemplar"], meanings: ["monosemanticity", "meanings"], peak: ["peak"], effect: ["effect", "causal type"], faithful: ["faithfulness"] };
  const lastView = { top: 0, hash: "" };

  const scoreCell = (scores, row) => {
    const score = scores.correlation[row];
    if (Number.isNaN(score)) return h("span", { class: "cell score-cell none", role: "cell" }, h("span", { class: "quiet" }, "\u2013"));
    const along = (value) => `${((Math.min(1, Math.max(-1, value)) + 1) / 2) * 100}%`;
    const [low, high, control] = [scores.ci_low[row], scores.ci_high[row], scores.control[row]];
    const word = Atlas.index.verdicts[scores.verdict[row]];
    const marks = [h("i", { class: "zero" })];
    if (!Number.isNaN(low) && !Number.isNaN(high)) {
      marks.push(h("i", { class: "range", vars: { left: along(low), width: `calc(${along(high)} - ${along(low)})` } }));
    }
    if (!Number.isNaN(control)) marks.push(h("i", { class: "other", vars: { left: along(control) } }));
    marks.push(h("i", { class: "dot", vars: { left: along(score) } }));
    return h("span", { class: "cell score-cell", role: "cell" }, h("span", { class: "judged" }, h("b", { class: scores.beats[row] ? "beats" : null }, Atlas.signed(score)),
      word ? h("span", { class: `verdict-${word}` }, word) : null),
      h("span", { class: "mini", "aria-hidden": "true" }, marks));
  };

  const makeRow = (shown, position, active) => {
    const { state, scores, rows } = shown;
    const row = rows[position];
    const { layer, neuron, type, tested, shares, scale, meanings, monosemanticity } = Atlas.columns;
    const kind = state.rule === "tested" ? Atlas.index.tested_types[tested[row]] : Atlas.index.types[type[row]];
    const words = Atlas.columns.wordsOf(row, Atlas.explainerOf(state.pair));
    const outcome = Atlas.index.outcomes[scores.outcome[row]] || "";
    const explanation = h("span", { class: "cell words", role: "cell", dir: "auto" });
    if (words) explanation.textContent = words;
    else if (words === null) explanation.append(h("span", { class: "quiet" }, "\u2026"));
    else {
      const texts = Atlas.columns.textOf(row);
      explanation.append(h("span", { class: "quiet" }, `${Atlas.plain(outcome)}${texts ? "; its texts: " : ""}`), texts);
    }
    return h("div", { class: "row", role: "row", "aria-rowindex": position + 2, "data-position": position },
      h("span", { class: "cell name-cell", role: "rowheader" }, h("a", {
        href: Atlas.route.toNeuron(layer[row], neuron[row], state), tabindex: position === active ? 0 : -1,
        "aria-label": `Layer ${layer[row]}, neuron ${neuron[row]}`,
      }, h("span", { class: "quiet" }, `${layer[row]}:`), String(neuron[row]))),
      h("span", { class: "cell type-cell", role: "cell" }, kind ? [Atlas.swatch(kind), kind] : "\u2013"), explanation,
      scoreCell(scores, row),
      h("span", { class: "cell number", role: "cell" }, Atlas.signed(scores.control[row]),
        Number.isNaN(scores.control[row]) ? null : h("span", { class: "control-name" }, Atlas.index.control_terms[scores.strongest[row]])),
      h("span", { class: "cell number", role: "cell" }, Atlas.difference(scores.margin[row])),
      h("span", { class: "cell bar", role: "cell" }, h("span", { class: "share-bar", role: "img", "aria-label": Atlas.index.types.map((name, code) => `${name} ${Math.round(shares[row * 4 + code] / 2.55)} %`).join(", ") },
        Atlas.index.types.map((name, code) => (shares[row * 4 + code] ? h("span", { class: `type-${name}`, vars: { "flex-grow": shares[row * 4 + code] } }) : null)))),
      h("span", { class: "cell number", role: "cell" }, Atlas.signed(monosemanticity[row]),
        meanings[row] > 1 ? h("span", { class: "control-name" }, `${meanings[row]} meanings`) : null),
      h("span", { class: "cell number", role: "cell" }, Atlas.threeDigits(scale[row])),
      Atlas.index.extra.map((key) => extraCell(key, scores, row)));
  };

  const extraCell = (key, scores, row) => {
    if (key === "faithful") {
      return h("span", { class: "cell number", role: "cell" }, h("span", { class: scores.faithful[row] ? "beats" : null },
        Atlas.threeDigits(scores.faithfulness[row])));
    }
    const through = Atlas.index.causal_types[Atlas.columns.causal[row]];
    return h("span", { class: "cell number", role: "cell" }, Atlas.threeDigits(Atlas.columns.effect[row]),
      through && through !== "none" ? h("span", { class: "control-name" }, `by ${through}`) : null);
  };

  /** Draw the visible rows of a scrolling box. Arrow keys move the active row. */
  const virtualRows = (scroller, canvas) => {
    let shown = null;
    let active = 0;
    let queued = false;
    const made = new Map();
    const pitch = () => parseFloat(getComputedStyle(scroller).getPropertyValue("--row")) || 44;
    const geometry = () => {
      const row = pitch();
      const whole = shown.rows.length * row;
      const height = Math.min(whole, TALLEST);
      const factor = height > scroller.clientHeight ? (whole - scroller.clientHeight) / (height - scroller.clientHeight) : 1;
      return { row, height, factor };
    };
    const draw = () => {
      queued = false;
      if (!shown) return;
      const { row, height, factor } = geometry();
      canvas.style.height = `${height}px`;
      const top = scroller.scrollTop * factor; // Scroll position if all rows were laid out.
      const first = Math.max(0, Math.floor(top / row) - OVERSCAN);
      const last = Math.min(shown.rows.length, Math.ceil((top + scroller.clientHeight) / row) + OVERSCAN);
      for (const [position, element] of made) {
        if (position < first || position >= last) { element.remove(); made.delete(position); }
      }
      const places = new Set();
      for (let position = first; position < last; position += 1) {
        let element = made.get(position);
        if (!element) {
          element = makeRow(shown, position, active);
          made.set(position, element);
          canvas.append(element);
        }
        element.style.transform = `translateY(${position * row - top + scroller.scrollTop}px)`;
        places.add(Atlas.columns.place[shown.rows[position]]);
      }
      loadWords(places);
    };
    const loadWords = (places) => {
      const explainer = Atlas.explainerOf(shown.state.pair);
      if (explainer < 0) return;
      for (const place of places) {
        if (Atlas.columns.words.has(`${explainer}/${Atlas.index.layers[place].layer}`)) continue;
        Promise.all([Atlas.columns.loadWords(explainer, place), Atlas.columns.loadTexts(place)]).then(renew, () => {});
      }
    };
    const renew = () => {
      const focused = canvas.contains(document.activeElement);
      made.forEach((element) => element.remove());
      made.clear();
      draw();
      if (focused) focus(active);
    };
    const soon = () => { if (!queued) { queued = true; requestAnimationFrame(draw); } };
    const focus = (position) => {
      if (!shown || !shown.rows.length) return;
      made.get(active)?.querySelector("a").setAttribute("tabindex", "-1");
      active = Math.min(Math.max(position, 0), shown.rows.length - 1);
      const { row, factor } = geometry();
      const top = scroller.scrollTop * factor;
      if (active * row < top) scroller.scrollTop = (active * row) / factor;
      else if ((active + 1) * row > top + scroller.clientHeight) scroller.scrollTop = ((active + 1) * row - scroller.clientHeight) / factor;
      draw();
      const link = made.get(active)?.querySelector("a");
      link?.setAttribute("tabindex", "0");
      link?.focus({ preventScroll: true });
    };
    scroller.addEventListener("scroll", soon, { passive: true });
    new ResizeObserver(soon).observe(scroller);
    canvas.addEventListener("focusin", (event) => {
      const position = Number(event.target.closest("[data-position]")?.dataset.position);
      if (Number.isFinite(position)) active = position;
    });
    scroller.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor(scroller.clientHeight / pitch()) - 1);
      const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      focus(active + step);
    });
    return {
      show: (found, top, position) => {
        shown = found;
        active = Math.min(position, Math.max(0, found.rows.length - 1));
        made.forEach((element) => element.remove());
        made.clear();
        canvas.style.height = `${geometry().height}px`;
        scroller.scrollTop = top;
        draw();
      },
      focus: () => focus(active),
      where: () => ({ top: scroller.scrollTop, active }),
    };
  };

  const meaning = (key) => TERMS[key]?.map((name) => Atlas.index.glossary[name]).join(" ");

  const heads = (state, sortBy) => h("div", { class: "row head", role: "row", "aria-rowindex": 1 }, columnHeads().map(([key, name]) => h("span", {
    class: `cell head-${key}`, role: "columnheader", "aria-sort": state.sort === key ? (state.down ? "descending" : "ascending") : "none",
  }, h("button", { type: "button", onclick: () => sortBy(key), title: meaning(key) }, name, h("span", { class: "arrow", "aria-hidden": "true" })))));

  /** Show the table in `main`. Return its key handlers. */
  Atlas.showTable = async (main, route, isCurrent) => {
    const state = route.state;
    const head = h("div", { role: "rowgroup" });
    const canvas = h("div", { class: "canvas", role: "rowgroup" });
    const scroller = h("div", { class: "scroller" }, canvas);
    const extra = Atlas.index.extra.map(() => "4.8rem").join(" ");
    const grid = h("div", { class: extra ? "grid wider" : "grid", vars: { "--extra": extra }, role: "table", "aria-label": "Neurons", "aria-describedby": "found" }, head, scroller);
    const found = h("p", { class: "found", id: "found" }, "Opening\u2026");
    const rows = virtualRows(scroller, canvas);
    let turn = 0;

    const update = async ({ quietly = false, top = 0, position = 0 } = {}) => {
      const mine = ++turn;
      Atlas.route.replace(Atlas.route.toTable(state));
      head.replaceChildren(heads(state, sortBy));
      grid.setAttribute("aria-busy", "true");
      try {
        const selected = await Atlas.columns.select(state, (done, total) => {
          if (mine === turn) found.textContent = `Reading explanations: ${done} of ${total} layers`;
        });
        if (mine !== turn || !isCurrent()) return;
        const count = selected.rows.length;
        const words = count === Atlas.columns.total ? `${Atlas.count(count)} neurons`
          : `${Atlas.count(count)} of ${Atlas.count(Atlas.columns.total)} neurons`;
        found.replaceChildren(h("b", {}, words));
        if (!quietly) Atlas.announce(words);
        grid.setAttribute("aria-rowcount", count + 1);
        rows.show({ ...selected, state: { ...state } }, top, position);
        controls.draw(selected);
        empty.hidden = count > 0;
      } catch (error) {
        if (mine === turn) found.textContent = `The table cannot be shown: ${error.message}.`;
      } finally {
        if (mine === turn) grid.setAttribute("aria-busy", "false");
      }
    };
    const sortBy = (key) => {
      if (state.sort === key) state.down = !state.down;
      else Object.assign(state, { sort: key, down: !["neuron", "type", "words"].includes(key) });
      const focused = document.activeElement?.closest?.(".head");
      update().then(() => { if (focused) head.querySelector(`.head-${key} button`).focus(); });
    };
    const controls = Atlas.controls(state, columnHeads(), update);
    const empty = h("p", { class: "empty nothing", hidden: true }, "No neuron is left by these filters.");
    main.replaceChildren(h("section", { class: "finder" }, h("h1", { class: "unseen" }, "All neurons"), controls.element,
      h("div", { class: "count-line" }, found, controls.clear, controls.order), grid, empty));
    document.title = `Neurons \u2013 ${Atlas.index.title}`;
    Atlas.leaveTable = () => { lastView.hash = Atlas.route.toTable(state); Object.assign(lastView, rows.where()); };
    const back = lastView.hash === Atlas.route.toTable(state);
    await update(back ? { top: lastView.top, position: lastView.active } : {});
    return {
      "/": () => controls.search.focus(),
      ArrowDown: () => rows.focus(),
      refocus: back ? rows.focus : () => {},
    };
  };
})();
