"use strict";
/* The view of one neuron. */
(() => {
  const { h, foreign } = Atlas;

  const load = async (layer, neuron) => {
    const known = Atlas.index.layers.find((one) => one.layer === layer);
    if (!known) throw new Error(`this atlas has no layer ${layer}`);
    // If the layer is complete, a neuron's row is its index, and the table is not needed.
    let row = neuron;
    if (known.first !== 0 || known.last !== known.neurons - 1) {
      await Atlas.columns.open();
      const found = Atlas.columns.find(layer, neuron);
      row = found < 0 ? -1 : found - Atlas.columns.starts[Atlas.columns.place[found]];
    }
    if (row < 0 || row >= known.neurons) throw new Error(`this atlas has no neuron ${neuron} in layer ${layer}`);
    const chunk = Math.floor(row / Atlas.index.chunk);
    const details = await Atlas.load(`neurons/${layer}/${chunk}`);
    return details[row - chunk * Atlas.index.chunk];
  };

  const shares = (details) => {
    const types = Atlas.index.types;
    return h("div", { class: "shares" },
      h("div", { class: "share-bar", "aria-hidden": "true" }, types.map((type, place) => (details.shares[place]
        ? h("span", { class: `type-${type}`, vars: { "flex-grow": details.shares[place] } }) : null))),
      h("ul", {}, types.map((type, place) => h("li", { class: details.shares[place] ? null : "nil" },
        Atlas.swatch(type), type, " ", h("b", {}, Atlas.percent(details.shares[place]))))),
      h("p", { class: "quiet" }, `of ${details.n_exemplars} `, Atlas.term("exemplar", "exemplars")));
  };

  const facts = (details) => {
    const rows = ["visual", "text", "template"].map((role) => {
      const [count, mean, deviation, highest, positive] = details.moments[role];
      return count ? h("tr", {}, h("th", { scope: "row" }, role), h("td", {}, Atlas.threeDigits(highest)),
        h("td", {}, Atlas.threeDigits(mean)), h("td", {}, Atlas.threeDigits(deviation)), h("td", {}, Atlas.percent(positive))) : null;
    });
    return h("section", { class: "whole", "aria-labelledby": "whole-title" },
      h("h2", { id: "whole-title" }, "Over the whole dataset"),
      Atlas.histogram(details),
      h("p", { class: "under-figure" }, "Share of tokens by ", Atlas.term("activation"), ", in half octaves, on a logarithmic scale."),
      Atlas.reading("histogram"),
      h("table", {}, h("thead", {}, h("tr", {}, ["Tokens", "Highest", "Mean", "Deviation", "Active"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, rows)),
      details.top_words.length ? h("p", { class: "word-list" }, h("span", { class: "quiet" }, "Peaks at "),
        details.top_words.map(([word, share], place) => [place ? ", " : "", foreign("bdi", {}, word), h("span", { class: "quiet" }, ` ${Atlas.percent(share)}`)])) : null,
      details.image_words.length ? h("p", { class: "word-list" }, h("span", { class: "quiet" }, "Its images\u2019 texts share "),
        details.image_words.map((word, place) => [place ? ", " : "", foreign("bdi", {}, word)])) : null,
      Atlas.known(details.monosemanticity) ? h("p", { class: "word-list" }, Atlas.term("monosemanticity", "Monosemanticity"), " ", h("b", {}, Atlas.signed(details.monosemanticity)),
        ", ", Atlas.term("meanings"), " ", h("b", {}, String(details.meanings))) : null,
      Object.entries(details.near).filter(([, near]) => near.length).map(([role, near]) => h("p", { class: "word-list near" },
        h("span", { class: "quiet" }, `Nearest by ${role === "visual" ? "what it sees" : "its words"} `),
        near.map(([layer, neuron, cosine], place) => [place ? ", " : "",
          h("a", { href: `#/neuron/${layer}:${neuron}` }, `${layer}:${neuron}`), h("span", { class: "quiet" }, ` ${cosine.toFixed(2)}`)]))));
  };

  const tested = (details) => (details.tested ? h("p", { class: "quiet tested" }, "By tests over all tokens: ",
    h("b", {}, Atlas.swatch(details.tested.type), details.tested.type),
    `, high at ${Atlas.percent(details.tested.rate_visual)} of visual and ${Atlas.percent(details.tested.rate_text)} of text tokens`,
    Atlas.known(details.tested.q_block) ? `, q ${Atlas.threeDigits(details.tested.q_block)}` : null) : null);

  /** Show what the model says with the neuron clamped, next to what it says without. */
  const says = (details) => {
    const { value, sample, said, status } = details.says || {};
    if (!said || status === "silent") return null;
    const rows = said.map(([without, clamped], place) => h("tr", {},
      h("th", { scope: "row" }, place ? `sample ${sample}` : "gray image"),
      foreign("td", {}, without), foreign("td", {}, clamped === without ? "the same" : clamped)));
    return h("section", { class: "says", "aria-labelledby": "says-title" },
      h("h2", { id: "says-title" }, "With the neuron turned up"),
      h("p", { class: "lede" }, `The model\u2019s description, without a change and with the neuron clamped at ${Atlas.threeDigits(value)} or higher at every token.`),
      status === "ok" ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {},
        ["Image", "Without", "Clamped"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows)))
        : h("p", { class: "empty" }, "The model\u2019s output overflows."));
  };

  const tokens = (name, list) => (list.length ? h("p", { class: "word-list" }, h("span", { class: "quiet" }, `${name} `),
    list.map((token, place) => [place ? ", " : "", foreign("bdi", {}, token.trim() || token)])) : null);

  const nats = ([value, low, high]) => [h("b", {}, Atlas.threeDigits(value)),
    Atlas.known(low) ? h("span", { class: "quiet" }, ` (${Atlas.threeDigits(low)} to ${Atlas.threeDigits(high)})`) : null];

  /** Show the tokens that the neuron promotes, and what the loss owes to it. */
  const does = (details) => {
    const { effect, output } = details;
    if (!effect && !output) return null;
    const measured = effect && effect.status === "ok";
    return h("section", { class: "does", "aria-labelledby": "does-title" },
      h("h2", { id: "does-title" }, "What it does"),
      output ? [tokens("Promotes", output.promoted), tokens("Suppresses", output.suppressed)] : null,
      measured ? h("p", {}, "Zeroing it changes the ", Atlas.term("loss"), " by ", nats(effect.total), ", ", Atlas.term("q-value", "q"), ` ${Atlas.signed(effect.q, 3)}: `,
        ["visual", "text", "template"].map((role, place) => [place ? ", " : "", `${role} tokens `, nats(effect.roles[place])]),
        ". ", Atlas.term("causal type", "Causal type"), ": ", h("b", {}, effect.type), ".")
        : effect ? h("p", { class: "quiet" }, `No effect: ${Atlas.plain(effect.status)}.`) : null);
  };

  /** Show the meanings of a neuron that has several: the explanation, score and exemplars of each. */
  const meaningsOf = (details, meanings) => {
    if (!meanings) return null;
    const ranked = [...details.exemplars, ...details.weaker];
    const measured = (score) => (Atlas.known(score.correlation) ? h("p", {}, Atlas.term("score"), " ", h("b", {}, Atlas.signed(score.correlation)),
      h("span", { class: "quiet" }, ` (${Atlas.signed(score.ci_low)} to ${Atlas.signed(score.ci_high)}, `, foreign("bdi", {}, score.simulator), ")"),
      Atlas.known(score.whole) ? [", the whole neuron\u2019s explanation on the same samples ", h("b", {}, Atlas.signed(score.whole))] : null)
      : h("p", { class: "quiet" }, `No score: ${Atlas.plain(score.status)}.`));
    return h("section", { class: "several", "aria-labelledby": "several-title" },
      h("h2", { id: "several-title" }, `${meanings.length} `, Atlas.term("meanings")),
      meanings.map((one) => h("div", { class: "meaning" },
        h("h3", {}, `Meaning ${one.meaning}`, h("span", { class: "quiet" }, ` ${one.n_exemplars} exemplars`)),
        one.status === "ok" ? foreign("p", { class: "words" }, one.text) : h("p", { class: "quiet" }, `No explanation: ${Atlas.plain(one.status)}.`),
        one.scores.map(measured),
        h("div", { class: "thumbnails" }, ranked.map((each, rank) => [each, rank]).filter(([each]) => one.samples.includes(each[0])).slice(0, 4)
          .map(([[id, peak, role], rank]) => Atlas.thumbnail([id, peak, role], rank))))));
  };

  const strongest = (details) => {
    const weaker = details.weaker.length ? h("details", { class: "weaker" }, h("summary", {}, `${details.weaker.length} weaker exemplars`)) : null;
    weaker?.addEventListener("toggle", () => {
      if (weaker.open && weaker.childElementCount === 1) {
        weaker.append(h("div", { class: "thumbnails" }, details.weaker.map((one, place) => Atlas.thumbnail(one, place + details.exemplars.length))));
      }
    });
    return h("section", { "aria-labelledby": "strongest-title" },
      h("h2", { id: "strongest-title" }, "Strongest ", Atlas.term("exemplar", "exemplars")),
      details.exemplars.length ? Atlas.reading("exemplars") : null,
      details.exemplars.length ? h("div", { class: "exemplars" },
        details.exemplars.map((one, rank) => Atlas.exemplar(one, rank, details.scale || 0)))
        : details.weaker.length ? null : h("p", { class: "empty" }, "This neuron has no exemplars."),
      weaker);
  };

  /** Show real and simulated activations for one explainer, with a tab per simulator. */
  const heldOut = (details, explainer) => {
    const { samples, simulated } = details.held_out;
    const mine = simulated.filter((one) => one.explainer === explainer);
    if (!samples.length || !mine.length) return null;
    const figures = h("div", { class: "pairs", id: "pairs" });
    const show = (number) => figures.replaceChildren(...samples.map((sample, place) => Atlas.heldOutSample(sample, mine[number].traces[place], details.scale || 0)));
    const choice = mine.length > 1 ? Atlas.tabs("Simulator", mine.map((one) => one.simulator), 0, figures, show) : null;
    if (!choice) show(0);
    return h("section", { "aria-labelledby": "held-title" },
      h("h2", { id: "held-title" }, "Real and simulated activations"),
      h("p", { class: "lede" }, "These samples were held out from the ", Atlas.term("explainer"), ". The ", Atlas.term("simulator"), " (",
        mine.map((one, place) => [place ? ", " : "", foreign("bdi", {}, one.simulator)]),
        ") predicts from the explanation alone where the neuron responds. Each side is scaled to its own maximum, because a correlation has no unit."),
      Atlas.reading("held_out"), choice, figures);
  };

  const trail = (route) => {
    const back = h("a", { href: Atlas.route.toTable(route.state), class: "back", "aria-keyshortcuts": "Escape" }, "\u2190\u00a0Table");
    const [before, after] = ["Previous", "Next"].map((word) => h("a", {
      class: "step", "aria-disabled": "true", "aria-keyshortcuts": word === "Next" ? "ArrowRight" : "ArrowLeft",
    }, word === "Next" ? "Next\u00a0\u203a" : "\u2039\u00a0Previous"));
    const place = h("span", { class: "quiet", id: "place" }, "\u2026");
    const bar = h("nav", { class: "trail", "aria-label": "Neurons in the order of the table" }, back,
      h("span", { class: "steps" }, before, place, after));
    const fill = ({ rows, at, filtered }) => {
      const go = (element, row) => {
        if (row === undefined) return;
        element.href = Atlas.route.toNeuron(Atlas.columns.layer[row], Atlas.columns.neuron[row], route.state);
        element.removeAttribute("aria-disabled");
      };
      go(before, rows[at - 1]);
      go(after, rows[at + 1]);
      place.textContent = `${Atlas.count(at + 1)} of ${Atlas.count(rows.length)}${filtered ? " found" : ""}`;
    };
    return { bar, fill, before, after, back };
  };

  /** Return the neuron's position among the filtered rows, or among all rows if the filter excludes it. */
  const positionOf = async (route) => {
    const row = await Atlas.columns.open().then(() => Atlas.columns.find(route.layer, route.neuron));
    const { rows } = await Atlas.columns.select(route.state);
    const at = rows.indexOf(row);
    if (at >= 0) return { rows, at, filtered: rows.length < Atlas.columns.total };
    const all = Uint32Array.from({ length: Atlas.columns.total }, (_, one) => one);
    return { rows: all, at: row, filtered: false };
  };

  /** Show a neuron in `main`. Return its key handlers. */
  Atlas.showNeuron = async (main, route, isCurrent) => {
    const { bar, fill, before, after, back } = trail(route);
    positionOf(route).then((found) => { if (isCurrent()) fill(found); })
      .catch((error) => { bar.querySelector("#place").textContent = error.message; });
    const keys = {
      ArrowLeft: () => before.href && before.click(), ArrowRight: () => after.href && after.click(), Escape: () => back.click(),
    };
    let details;
    try {
      details = await load(route.layer, route.neuron);
    } catch (error) {
      if (isCurrent()) main.replaceChildren(bar, h("h1", {}, "No such neuron"), h("p", { class: "empty" }, `${Atlas.capital(error.message)}.`));
      return keys;
    }
    if (!isCurrent()) return keys;
    const panel = h("div", { class: "explanations", id: "explanation" });
    const below = h("div", {});
    const explanations = details.explanations;
    const wanted = Math.max(0, explanations.findIndex((one) => one.explainer === Atlas.index.pairs[route.state.pair]?.[0]));
    const show = (number) => {
      const mine = explanations[number];
      panel.replaceChildren(Atlas.explanation(mine), meaningsOf(details, mine.meanings) || "");
      below.replaceChildren(heldOut(details, explanations[number].explainer) || "");
      if (Atlas.index.pairs[route.state.pair]?.[0] !== mine.explainer) {
        route.state.pair = Math.max(0, Atlas.index.pairs.findIndex((one) => one[0] === explanations[number].explainer));
        Atlas.route.replace(Atlas.route.toNeuron(route.layer, route.neuron, route.state));
        back.href = Atlas.route.toTable(route.state);
        positionOf(route).then((found) => { if (isCurrent()) fill(found); });
      }
    };
    let tabs = null;
    if (explanations.length > 1) tabs = Atlas.tabs("Explainer", explanations.map((one) => one.explainer), wanted, panel, show);
    else if (explanations.length) show(0);
    else panel.append(h("p", { class: "empty" }, "This neuron was not explained."));
    const byTests = details.tested && route.state.rule === "tested" ? `, by tests ${details.tested.type}` : "";
    main.replaceChildren(bar, h("article", { class: "one", "aria-labelledby": "one-title" },
      h("header", { class: "neuron-head" },
        h("h1", { id: "one-title", tabindex: "-1" }, h("span", {}, `Layer ${details.layer ?? route.layer}`), " ", `Neuron ${Atlas.count(details.neuron)}`),
        details.part ? h("p", { class: "quiet" }, `${details.part[0].toUpperCase()}${details.part.slice(1)}`) : null,
        h("p", { class: "kind-line" }, h("span", { class: `chip type-${details.type}` }, details.type),
          h("span", { class: "quiet" }, Atlas.index.meanings[details.type], " Its highest activation is ", h("b", {}, Atlas.threeDigits(details.scale)), "."))),
      h("div", { class: "neuron-body" },
        h("div", { class: "neuron-text" }, tabs, panel, tested(details), does(details)),
        h("aside", { class: "aside" }, shares(details), facts(details))),
      strongest(details), says(details), below));
    document.title = `Layer ${route.layer}, neuron ${route.neuron} \u2013 ${Atlas.index.title}`;
    Atlas.announce(`Layer ${route.layer}, neuron ${details.neuron}, ${details.type}${byTests}`);
    return keys;
  };
})();
