"use strict";
/* Columns of all neurons as typed arrays, and their rows, filtered and sorted. */
(() => {
  const FAILS_LAYER = 1, FAILS_SCORE = 2, FAILS_TYPE = 4, FAILS_OTHER = 8;
  const columns = { scores: new Map(), words: new Map(), texts: new Map() };
  Atlas.columns = columns;

  /** Load the columns that do not depend on an explainer. */
  columns.open = () => {
    columns.opened ||= (async () => {
      const layers = Atlas.index.layers;
      const total = layers.reduce((sum, layer) => sum + layer.neurons, 0);
      Object.assign(columns, {
        total,
        layer: new Uint16Array(total),
        place: new Uint16Array(total), // Position of the layer in the index.
        neuron: new Uint32Array(total),
        type: new Uint8Array(total),
        tested: new Uint8Array(total),
        hasTested: false,
        scale: new Float32Array(total),
        shares: new Uint8Array(total * 4),
        meanings: new Uint8Array(total),
        monosemanticity: new Float32Array(total).fill(NaN),
        effect: new Float32Array(total).fill(NaN),
        causal: new Uint8Array(total),
        starts: [],
      });
      let start = 0;
      for (const layer of layers) { columns.starts.push(start); start += layer.neurons; }
      await Promise.all(layers.map(async (layer, place) => {
        const table = await Atlas.load(`table/${layer.layer}`);
        const from = columns.starts[place];
        columns.layer.fill(layer.layer, from, from + layer.neurons);
        columns.place.fill(place, from, from + layer.neurons);
        columns.neuron.set(new Uint32Array(Atlas.bytes(table.neuron).buffer), from);
        columns.type.set(Atlas.bytes(table.type), from);
        columns.scale.set(new Float32Array(Atlas.bytes(table.scale).buffer), from);
        columns.shares.set(Atlas.bytes(table.shares), from * 4);
        if (table.meanings) {
          columns.meanings.set(Atlas.bytes(table.meanings), from);
          const { steps, no_number: none } = Atlas.index;
          new Int16Array(Atlas.bytes(table.monosemanticity).buffer).forEach((value, at) => {
            columns.monosemanticity[from + at] = value === none ? NaN : value / steps;
          });
        }
        if (table.effect) {
          columns.effect.set(new Float32Array(Atlas.bytes(table.effect).buffer), from);
          columns.causal.set(Atlas.bytes(table.causal), from);
        }
        if (table.tested) { columns.tested.set(Atlas.bytes(table.tested), from); columns.hasTested = true; }
      }));
      return columns;
    })().catch((error) => { columns.opened = null; throw error; });
    return columns.opened;
  };

  /** Load the columns of one pair of explainer and simulator. */
  columns.loadScores = (number) => {
    if (!columns.scores.has(number)) {
      const loading = readScores(number).catch((error) => { columns.scores.delete(number); throw error; });
      columns.scores.set(number, loading);
    }
    return columns.scores.get(number);
  };

  const readScores = async (number) => {
    await columns.open();
    const scores = {};
    const measures = ["correlation", "ci_low", "ci_high", "control", "margin"];
    for (const name of measures) scores[name] = new Float32Array(columns.total);
    for (const name of ["outcome", "beats", "verdict", "strongest"]) scores[name] = new Uint8Array(columns.total);
    scores.faithfulness = new Float32Array(columns.total).fill(NaN);
    scores.faithful = new Uint8Array(columns.total);
    const { steps, no_number: none } = Atlas.index;
    await Promise.all(Atlas.index.layers.map(async (layer, place) => {
      const loaded = await Atlas.load(`scores/${number}/${layer.layer}`);
      const from = columns.starts[place];
      for (const name of measures) {
        const stored = new Int16Array(Atlas.bytes(loaded[name]).buffer);
        const column = scores[name];
        for (let row = 0; row < stored.length; row += 1) column[from + row] = stored[row] === none ? NaN : stored[row] / steps;
      }
      for (const name of ["outcome", "beats", "verdict", "strongest"]) scores[name].set(Atlas.bytes(loaded[name]), from);
      if (loaded.faithfulness) {
        scores.faithfulness.set(new Float32Array(Atlas.bytes(loaded.faithfulness).buffer), from);
        scores.faithful.set(Atlas.bytes(loaded.faithful), from);
      }
    }));
    return scores;
  };

  /** Load the explanations of one layer, as lines. Lower case is added by the first search. */
  columns.loadWords = async (explainer, place) => {
    const key = `${explainer}/${Atlas.index.layers[place].layer}`;
    if (!columns.words.has(key)) {
      const text = await Atlas.load(`words/${key}`);
      columns.words.set(key, { lines: text.split("\n"), small: null });
    }
    return columns.words.get(key);
  };

  /** Load the words of one layer's neurons that were not explained, each neuron's as a line. */
  columns.loadTexts = async (place) => {
    const { layer, neurons } = Atlas.index.layers[place];
    if (columns.texts.has(place) || !Atlas.index.texts) return;
    const loaded = await Atlas.load(`texts/${layer}`);
    const words = loaded.words.split("\n");
    const codes = new Uint16Array(Atlas.bytes(loaded.codes).buffer);
    const { texts: each, no_word: none } = Atlas.index;
    columns.texts.set(place, Array.from({ length: neurons }, (_, at) => Array.from(codes.subarray(at * each, (at + 1) * each))
      .filter((code) => code !== none).map((code) => words[code]).join(", ")));
  };

  /** Return the words of a row that was not explained; empty if there are none or not yet. */
  columns.textOf = (row) => columns.texts.get(columns.place[row])?.[row - columns.starts[columns.place[row]]] || "";

  /** Return the explanation of a row, or null if its layer is not loaded yet. */
  columns.wordsOf = (row, explainer) => {
    const place = columns.place[row];
    const words = columns.words.get(`${explainer}/${Atlas.index.layers[place].layer}`);
    return words ? words.lines[row - columns.starts[place]] : null;
  };

  /** Return the row of a neuron, or -1. */
  columns.find = (layer, neuron) => {
    const place = Atlas.index.layers.findIndex((one) => one.layer === layer);
    if (place < 0) return -1;
    const from = columns.starts[place], count = Atlas.index.layers[place].neurons;
    let low = from, high = from + count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (columns.neuron[middle] < neuron) low = middle + 1; else high = middle;
    }
    return low < from + count && columns.neuron[low] === neuron ? low : -1;
  };

  /** Filter and sort the rows by `state`. Also return the filters that each row fails, and the layers
      (their positions) that were not searched because the layer filter excludes them.
      progress(done, total) is called while explanations load for a search or sort. */
  columns.select = async (state, progress = () => {}) => {
    await columns.open();
    const scores = await columns.loadScores(state.pair);
    const fails = new Uint8Array(columns.total);
    markPlain(fails, state, scores);
    const terms = termsOf(state.words);
    const explainer = Atlas.explainerOf(state.pair);
    if (terms.length || state.sort === "words") await loadAll(explainer, state, progress);
    const unsearched = terms.length ? markWords(fails, terms, explainer) : new Set();
    let count = 0;
    for (let row = 0; row < fails.length; row += 1) if (!fails[row]) count += 1;
    const rows = new Uint32Array(count);
    for (let row = 0, at = 0; row < fails.length; row += 1) if (!fails[row]) rows[at++] = row;
    return { rows: sorted(rows, state, scores, explainer), fails, scores, unsearched };
  };

  columns.FAILS = { layer: FAILS_LAYER, score: FAILS_SCORE, type: FAILS_TYPE };

  const markPlain = (fails, state, scores) => {
    const { layer } = columns;
    const kind = state.rule === "tested" ? columns.tested : columns.type;
    const names = state.rule === "tested" ? Atlas.index.tested_types : Atlas.index.types;
    const allowed = new Uint8Array(256);
    names.forEach((name, code) => { allowed[code] = !state.types.length || state.types.includes(name) ? 1 : 0; });
    const outcome = state.status ? Atlas.index.outcomes.indexOf(state.status) : -1;
    const [first, last] = state.layers || [0, Infinity];
    const [low, high] = [state.low ?? -Infinity, state.high ?? Infinity];
    const bounded = state.low !== null || state.high !== null;
    for (let row = 0; row < fails.length; row += 1) {
      let failed = 0;
      if (layer[row] < first || layer[row] > last) failed |= FAILS_LAYER;
      if (bounded && !(scores.correlation[row] >= low && scores.correlation[row] <= high)) failed |= FAILS_SCORE;
      if (!allowed[kind[row]]) failed |= FAILS_TYPE;
      if (outcome >= 0 && scores.outcome[row] !== outcome) failed |= FAILS_OTHER;
      if (state.beats && !scores.beats[row]) failed |= FAILS_OTHER;
      fails[row] = failed;
    }
  };

  /** Split a search into words and quoted "phrases", in lower case. */
  const termsOf = (words) => [...words.toLowerCase().matchAll(/"([^"]+)"?|([^\s"]+)/g)]
    .map((found) => found[1] || found[2]);

  const loadAll = async (explainer, state, progress) => {
    const [first, last] = state.layers || [0, Infinity];
    const wanted = Atlas.index.layers.map((layer, place) => place)
      .filter((place) => Atlas.index.layers[place].layer >= first && Atlas.index.layers[place].layer <= last);
    const missing = wanted.filter((place) => !columns.words.has(`${explainer}/${Atlas.index.layers[place].layer}`)
      || (Atlas.index.texts && !columns.texts.has(place)));
    let done = wanted.length - missing.length;
    await Promise.all(missing.map(async (place) => {
      await Promise.all([columns.loadWords(explainer, place), columns.loadTexts(place)]);
      done += 1;
      progress(done, wanted.length);
    }));
  };

  /** Mark rows without the terms. Return the positions of layers whose explanations are not loaded. */
  const markWords = (fails, terms, explainer) => {
    const unsearched = new Set();
    Atlas.index.layers.forEach((layer, place) => {
      const from = columns.starts[place];
      const words = columns.words.get(`${explainer}/${layer.layer}`);
      if (!words) {
        fails.fill(FAILS_OTHER, from, from + layer.neurons);
        unsearched.add(place);
        return;
      }
      words.small ||= words.lines.map((line) => line.toLowerCase());
      for (let at = 0; at < layer.neurons; at += 1) {
        if (fails[from + at] & FAILS_OTHER) continue;
        const line = words.small[at] || columns.textOf(from + at).toLowerCase();
        if (!terms.every((term) => line.includes(term))) fails[from + at] |= FAILS_OTHER;
      }
    });
    return unsearched;
  };

  /* Orders. Numbers go by radix, which keeps rows that are equal as they were: by layer and neuron.
     What has no number comes last either way. */

  const sorted = (rows, state, scores, explainer) => {
    const { sort, down } = state;
    if (sort === "neuron") return down ? rows.reverse() : rows;
    if (sort === "words") return byWords(rows, down, explainer);
    const value = {
      type: (row) => (state.rule === "tested" ? columns.tested : columns.type)[row],
      score: (row) => scores.correlation[row],
      control: (row) => scores.control[row],
      margin: (row) => scores.margin[row],
      peak: (row) => columns.scale[row],
      meanings: (row) => columns.monosemanticity[row],
      effect: (row) => columns.effect[row],
      faithful: (row) => scores.faithfulness[row],
      share: (row) => (columns.type[row] < 4 ? columns.shares[row * 4 + columns.type[row]] : NaN),
    }[sort];
    const keys = new Float32Array(rows.length);
    for (let at = 0; at < rows.length; at += 1) keys[at] = value(rows[at]);
    return radix(rows, keys, down);
  };

  const radix = (rows, keys, down) => {
    const bits = new Uint32Array(keys.buffer);
    for (let at = 0; at < bits.length; at += 1) {
      if (Number.isNaN(keys[at])) { bits[at] = 0xffffffff; continue; }
      const ordered = bits[at] & 0x80000000 ? ~bits[at] : bits[at] | 0x80000000;
      bits[at] = Math.min((down ? ~ordered : ordered) >>> 0, 0xfffffffe);
    }
    let [from, to] = [{ rows, bits }, { rows: new Uint32Array(rows.length), bits: new Uint32Array(rows.length) }];
    for (const shift of [0, 11, 22]) {
      const places = new Uint32Array(2049);
      for (let at = 0; at < rows.length; at += 1) places[((from.bits[at] >>> shift) & 2047) + 1] += 1;
      for (let bin = 1; bin < 2049; bin += 1) places[bin] += places[bin - 1];
      for (let at = 0; at < rows.length; at += 1) {
        const place = places[(from.bits[at] >>> shift) & 2047]++;
        to.rows[place] = from.rows[at];
        to.bits[place] = from.bits[at];
      }
      [from, to] = [to, from];
    }
    return from.rows;
  };

  const byWords = (rows, down, explainer) => {
    const text = (row) => columns.wordsOf(row, explainer) || "\uffff";
    const texts = Array.from(rows, text);
    const places = Array.from(rows, (_, at) => at);
    places.sort((a, b) => (texts[a] < texts[b] ? -1 : texts[a] > texts[b] ? 1 : a - b));
    const ordered = Uint32Array.from(places, (at) => rows[at]);
    if (!down) return ordered;
    const explained = places.filter((at) => texts[at] !== "\uffff").length;
    ordered.subarray(0, explained).reverse();
    return ordered;
  };
})();
