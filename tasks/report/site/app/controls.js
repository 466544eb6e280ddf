"use strict";
/* The filters above the table. Each one changes `state` and updates the table. */
(() => {
  const { h, field } = Atlas;
  const PAUSE_MS = 120;

  const select = (choices, value, change) => {
    const element = h("select", { onchange: () => change(element.value) },
      choices.map(([key, name]) => h("option", { value: key, selected: key === value }, name)));
    return element;
  };

  const typeChips = (state, update) => {
    const row = h("div", { class: "chips", role: "group", "aria-label": "Types" });
    const fill = () => {
      const names = state.rule === "tested" ? Atlas.index.tested_types : Atlas.index.types;
      row.replaceChildren(...names.map((name) => h("button", {
        type: "button", class: "chip-button", "aria-pressed": String(state.types.includes(name)), "data-type": name,
        onclick: (event) => {
          state.types = state.types.includes(name) ? state.types.filter((one) => one !== name) : names.filter((one) => one === name || state.types.includes(one));
          event.currentTarget.setAttribute("aria-pressed", String(state.types.includes(name)));
          update();
        },
      }, Atlas.swatch(name), name)));
    };
    fill();
    return { row, fill };
  };

  const numberField = (name, value, change) => {
    const input = h("input", {
      type: "number", min: -1, max: 1, step: 0.05, value: value ?? "", placeholder: name === "from" ? "\u22121" : "1", "aria-label": `Score ${name}`,
      oninput: () => change(input.value === "" || !Number.isFinite(input.valueAsNumber) ? null : input.valueAsNumber),
    });
    return input;
  };

  /** Return the filters' element, the search field, and draw(selected), which updates the histograms. */
  Atlas.controls = (state, heads, update) => {
    let waiting = 0;
    const soon = () => { clearTimeout(waiting); waiting = setTimeout(update, PAUSE_MS); };
    const layers = Atlas.index.layers.map((one) => one.layer);
    const search = h("input", {
      type: "search", value: state.words, placeholder: "words, or \u201ca phrase\u201d", autocomplete: "off", spellcheck: "false", "aria-keyshortcuts": "/",
      oninput: () => { state.words = search.value.replace(/[\u201c\u201d]/g, '"'); soon(); },
    });

    const layerChoices = layers.map((layer) => [String(layer), String(layer)]);
    const setLayers = (first, last) => {
      const whole = first === layers[0] && last === layers.at(-1);
      state.layers = whole ? null : [Math.min(first, last), Math.max(first, last)];
      sync();
      update();
    };
    const ends = () => state.layers || [layers[0], layers.at(-1)];
    const from = select(layerChoices, String(ends()[0]), (value) => setLayers(Number(value), Math.max(Number(value), ends()[1])));
    const to = select(layerChoices, String(ends()[1]), (value) => setLayers(Math.min(Number(value), ends()[0]), Number(value)));
    from.setAttribute("aria-label", "From layer");
    to.setAttribute("aria-label", "To layer");
    const layerStrip = Atlas.strip("Neurons by layer", (first, last) => {
      const same = state.layers && state.layers[0] === layers[first] && state.layers[1] === layers[last];
      if (same) setLayers(layers[0], layers.at(-1)); else setLayers(layers[first], layers[last]);
    });

    const low = numberField("from", state.low, (value) => { state.low = value; soon(); });
    const high = numberField("to", state.high, (value) => { state.high = value; soon(); });
    const scoreStrip = Atlas.strip("Neurons by score", (first, last) => {
      const [least, most] = [Atlas.scoreOfColumn(first), Atlas.scoreOfColumn(last + 1)];
      const same = state.low === least && state.high === most;
      Object.assign(state, same ? { low: null, high: null } : { low: least, high: most });
      sync();
      update();
    }, true);

    const chips = typeChips(state, update);
    const rule = Atlas.index.layers.length && Atlas.index.rules.length > 1 ? select(
      [["paper", "the paper\u2019s rule"], ["tested", "tests"]], state.rule,
      (value) => { Object.assign(state, { rule: value, types: [] }); chips.fill(); update(); }) : null;
    const status = select([["", "any"], ...Atlas.index.outcomes.filter((one) => Atlas.index.seen_outcomes.includes(one)).map((one) => [one, Atlas.plain(one)])],
      state.status, (value) => { state.status = value; update(); });
    const pair = Atlas.index.pairs.length > 1 ? select(
      Atlas.index.pairs.map((names, number) => [String(number), names.filter(Boolean).join(", ")]), String(state.pair),
      (value) => { state.pair = Number(value); update(); }) : null;
    const beats = Atlas.index.level === null ? null : h("input", {
      type: "checkbox", checked: state.beats, onchange: () => { state.beats = beats.checked; update(); },
    });
    const clear = h("button", {
      type: "button", class: "clear",
      onclick: () => {
        const { pair: samePair, rule: sameRule, sort, down } = state;
        Object.assign(state, Atlas.route.nothing(), { pair: samePair, rule: sameRule, sort, down });
        sync();
        update();
        search.focus();
      },
    }, "Clear filters");
    const order = field("Sort by", select(heads.flatMap(([key, name]) => [[key, `${name} \u2191`], [`-${key}`, `${name} \u2193`]]),
      (state.down ? "-" : "") + state.sort, (value) => { Object.assign(state, { sort: value.replace(/^-/, ""), down: value.startsWith("-") }); update(); }));
    order.classList.add("order");

    /** Update the fields after the state has changed elsewhere. */
    const sync = () => {
      [from.value, to.value] = ends().map(String);
      low.value = state.low ?? "";
      high.value = state.high ?? "";
      search.value = state.words;
      status.value = state.status;
      if (beats) beats.checked = state.beats;
      chips.fill();
    };

    const draw = ({ fails, scores, unsearched }) => {
      const names = [...(state.rule === "tested" ? Atlas.index.tested_types : Atlas.index.types), "unknown", "unknown"];
      const byLayer = Atlas.countLayers(fails, state, unsearched);
      const sums = byLayer.filter(Boolean).map((column) => column.reduce((sum, one) => sum + one, 0));
      const unread = unsearched.size ? `, ${unsearched.size} of ${layers.length} layers not searched` : "";
      const range = state.layers && [layers.findIndex((one) => one >= state.layers[0]), layers.findLastIndex((one) => one <= state.layers[1])];
      layerStrip.draw(byLayer, names, range, `${Math.min(...sums)} to ${Math.max(...sums)} per layer${unread}`);
      const byScore = Atlas.countScores(fails, scores, state);
      const scored = byScore.reduce((sum, column) => sum + column.reduce((all, one) => all + one, 0), 0);
      const bounds = state.low === null && state.high === null ? null
        : [Atlas.columnOfScore(state.low ?? -1), Atlas.columnOfScore(state.high ?? 1) - 1];
      scoreStrip.draw(byScore, names, bounds, `${Atlas.count(scored)} scored`);
      clear.hidden = !(state.layers || state.types.length || state.status || state.low !== null || state.high !== null || state.words || state.beats);
      order.querySelector("select").value = (state.down ? "-" : "") + state.sort;
    };

    const more = h("details", { class: "more", open: matchMedia("(min-width: 44rem)").matches }, h("summary", {}, "Filters"),
      h("div", { class: "facets" },
        h("fieldset", {}, h("legend", {}, "Layers"), layerStrip, h("div", { class: "ends" }, from, h("span", { class: "quiet" }, "to"), to)),
        h("fieldset", {}, h("legend", {}, "Score"), scoreStrip, h("div", { class: "ends" }, low, h("span", { class: "quiet" }, "to"), high)),
        h("div", { class: "choices" },
          chips.row,
          h("div", { class: "selects" }, rule ? field("Typed by", rule) : null, field("Status", status), pair ? field("Explained by", pair) : null,
            beats ? h("label", { class: "check" }, beats, " beats its controls") : null))));
    const element = h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
      h("label", { class: "search" }, h("span", { class: "unseen" }, "Words in the explanation"), search, h("kbd", { "aria-hidden": "true" }, "/")), more);
    return { element, search, clear, order, draw };
  };
})();
