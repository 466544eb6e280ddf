"use strict";
/* The address holds the view and the table's filters and order, so every view can be linked.

   #/neurons?type=visual,text&layer=2-5&score=0.3..&words=red&sort=-score
   #/neuron/3:417?...   (the same parameters; they set the order of next and previous) */
(() => {
  const SORTS = ["neuron", "type", "words", "score", "control", "margin", "peak", "share", "meanings"];
  /* Also the columns that only some runs have. */
  Object.defineProperty(Atlas, "SORTS", { get: () => [...SORTS, ...Atlas.index.extra] });
  Atlas.explainerOf = (number) => Atlas.index.explainers.indexOf(Atlas.index.pairs[number]?.[0]);

  const nothing = () => ({
    layers: null, types: [], status: "", low: null, high: null, words: "", beats: false,
    pair: 0, rule: "paper", sort: "neuron", down: false,
  });

  const number = (text) => (text === "" || !Number.isFinite(Number(text)) ? null : Number(text));

  const readState = (query) => {
    const given = new URLSearchParams(query);
    const state = nothing();
    const [first, last] = (given.get("layer") || "").split("-").map((one) => number(one));
    if (first !== null && first !== undefined) state.layers = [first, last ?? first];
    state.rule = given.get("rule") === "tested" ? "tested" : "paper";
    const types = state.rule === "tested" ? Atlas.index.tested_types : Atlas.index.types;
    state.types = (given.get("type") || "").split(",").filter((one) => types.includes(one));
    if (Atlas.index.outcomes.includes(given.get("status"))) state.status = given.get("status");
    const [low, high] = (given.get("score") || "..").split("..");
    state.low = number(low ?? "");
    state.high = number(high ?? "");
    state.words = given.get("words") || "";
    state.beats = given.get("beats") === "1";
    const by = given.get("by");
    const found = Atlas.index.pairs.findIndex((pair) => pair.join("/") === by);
    state.pair = Math.max(0, found);
    const sort = given.get("sort") || "";
    if (Atlas.SORTS.includes(sort.replace(/^-/, ""))) {
      state.sort = sort.replace(/^-/, "");
      state.down = sort.startsWith("-");
    }
    return state;
  };

  const writeState = (state) => {
    const query = new URLSearchParams();
    if (state.layers) query.set("layer", state.layers[0] === state.layers[1] ? state.layers[0] : state.layers.join("-"));
    if (state.rule !== "paper") query.set("rule", state.rule);
    if (state.types.length) query.set("type", state.types.join(","));
    if (state.low !== null || state.high !== null) query.set("score", `${state.low ?? ""}..${state.high ?? ""}`);
    if (state.status) query.set("status", state.status);
    if (state.beats) query.set("beats", "1");
    if (state.words) query.set("words", state.words);
    if (state.pair) query.set("by", Atlas.index.pairs[state.pair].join("/"));
    if (state.sort !== "neuron" || state.down) query.set("sort", (state.down ? "-" : "") + state.sort);
    const text = query.toString().replace(/%2C/g, ",").replace(/%2F/g, "/");
    return text ? `?${text}` : "";
  };

  Atlas.route = {
    nothing,
    /** Parse the address. */
    read: () => {
      const [path, query = ""] = location.hash.replace(/^#/, "").split(/\?(.*)/s);
      const found = /^\/neuron\/(\d+):(\d+)$/.exec(path);
      const state = readState(query);
      return found ? { view: "neuron", layer: Number(found[1]), neuron: Number(found[2]), state } : { view: "neurons", state };
    },
    toTable: (state) => `#/neurons${writeState(state)}`,
    toNeuron: (layer, neuron, state) => `#/neuron/${layer}:${neuron}${writeState(state)}`,
    /** Change the address without a new entry in the history. */
    replace: (hash) => { if (location.hash !== hash) history.replaceState(null, "", hash); },
  };
})();
