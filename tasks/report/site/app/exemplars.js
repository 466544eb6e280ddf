"use strict";
/* Samples as figures: the image under its heat map, and the text with colored tokens. */
(() => {
  const { h, foreign } = Atlas;
  const EXCERPT = 44, LONGEST_UNCUT = 66, LONGEST_WORD = 8;

  const bytesOf = (packed) => (packed ? Atlas.bytes(packed) : new Uint8Array(0));

  /** Return the image of a sample with its heat map, or an empty frame if there is no image. */
  Atlas.view = (sample, heat, { what = "Heat map", frame = false } = {}) => {
    const [width, height] = sample.size || [1, 1];
    const view = h("div", { class: `view${sample.image ? "" : " gap"}`, vars: { "--ratio": width / height } });
    if (sample.image) {
      view.append(h("img", {
        class: "seen", src: sample.image, width, height, loading: "lazy", decoding: "async",
        alt: `Image of sample ${sample.id}`,
      }));
    }
    const [rows, columns] = sample.grid || [0, 0];
    if (rows && heat.length === rows * columns) {
      const { canvas, strongest } = Atlas.heatMap(heat, rows, columns, what);
      view.append(canvas);
      if (frame) {
        const [across, down] = [100 / columns, 100 / rows];
        view.append(h("span", {
          class: "peak", "aria-hidden": "true",
          vars: {
            left: `${(strongest % columns) * across}%`, top: `${Math.floor(strongest / columns) * down}%`,
            width: `${across}%`, height: `${down}%`,
          },
        }));
      }
    }
    return view;
  };

  /** Return the tokens of a text, colored by activation. scale: activation of byte 255, or null for
      predictions, which have no unit. */
  const tokens = (sample, bytes, scale, from, to) => {
    const shown = [];
    for (let place = from; place < to; place += 1) {
      const piece = sample.tokens[place];
      const word = piece.trimStart();
      if (word && word.length < piece.length) shown.push(piece.slice(0, piece.length - word.length));
      // The subject never saw the end of a truncated text.
      const level = place < bytes.length ? bytes[place] : 0;
      const title = place >= bytes.length ? null
        : scale === null ? `${(level / 25.5).toFixed(1)} of 10` : `${Atlas.threeDigits((level / 255) * scale)} (${(level / 25.5).toFixed(1)} of 10)`;
      shown.push(h("span", { title, vars: level >= 5 ? { "--a": (level / 255).toFixed(3) } : {} }, word || piece));
    }
    return shown;
  };

  /** Return the excerpt around the strongest token. It starts at a whole word if possible. */
  const stretch = (sample, bytes) => {
    const count = sample.tokens.length;
    if (count <= LONGEST_UNCUT) return [0, count];
    let strongest = 0;
    for (let place = 0; place < bytes.length; place += 1) if (bytes[place] > bytes[strongest]) strongest = place;
    let start = Math.min(Math.max(strongest - EXCERPT / 2, 0), count - EXCERPT);
    for (let place = start; place > Math.max(-1, start - LONGEST_WORD); place -= 1) {
      if (place === 0 || /^\s/.test(sample.tokens[place])) { start = place; break; }
    }
    return [start, start + EXCERPT];
  };

  const tokenText = (sample, bytes, scale, [from, to], source) => h("p", { class: "token-text", dir: "auto" },
    source ? h("span", { class: "token-source" }, source) : null,
    from > 0 ? h("span", { class: "quiet" }, "\u2026") : null,
    tokens(sample, bytes, scale, from, to),
    to < sample.tokens.length ? h("span", { class: "quiet" }, " \u2026") : null);

  const label = (number, id, right) => h("p", { class: "label" },
    h("span", {}, h("b", {}, number), " ", foreign("span", { class: "source" }, id)), h("span", { class: "quiet" }, right));

  const problem = (sample) => (sample.problem
    ? h("p", { class: "gap-note" }, h("b", {}, "No image "), foreign("span", {}, sample.problem)) : null);

  const wholeText = (sample, rows, cut) => {
    if (!cut) return null;
    const details = h("details", {}, h("summary", {}, `All ${sample.tokens.length} tokens`));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) {
        for (const [bytes, scale, source] of rows) details.append(tokenText(sample, bytes, scale, [0, sample.tokens.length], source));
      }
    });
    return details;
  };

  /** Return a placeholder, and replace it by the figure when the sample has loaded. */
  const later = (id, make) => {
    const figure = h("figure", { class: "exemplar waiting" }, h("div", { class: "view", vars: { "--ratio": 1 } }));
    Atlas.loadSample(id).then((sample) => { figure.replaceWith(make({ id: `sample ${id}`, tokens: [], ...sample })); })
      .catch((error) => { figure.replaceChildren(h("p", { class: "gap-note" }, error.message)); });
    return figure;
  };

  /** Show one exemplar: [sample id, peak, 0 (peak in the image) or 1 (in the text), heat map, text]. */
  Atlas.exemplar = ([id, peak, role, image, text], rank, scale) => later(id, (sample) => {
    const bytes = bytesOf(text);
    const heat = bytesOf(image);
    const part = stretch(sample, bytes);
    const word = role === 1 ? sample.tokens[bytes.indexOf(Math.max(...bytes))]?.trim() : "";
    const where = role === 0 ? " in the image" : word ? [" at ", foreign("bdi", {}, `\u201c${word}\u201d`)] : " in the text";
    return h("figure", { class: "exemplar" },
      Atlas.view(sample, heat, { frame: role === 0 && peak > 0 }),
      h("figcaption", {}, problem(sample),
        label(rank + 1, sample.id, ["peak ", h("b", {}, Atlas.threeDigits(peak)), where]),
        sample.tokens.length ? tokenText(sample, bytes, scale, part) : null,
        wholeText(sample, [[bytes, scale]], part[1] - part[0] < sample.tokens.length)));
  });

  /** Show the image and the peak of a weaker exemplar. */
  Atlas.thumbnail = ([id, peak, role], rank) => later(id, (sample) => h("figure", { class: "exemplar small" },
    Atlas.view(sample, new Uint8Array(0)),
    h("figcaption", {}, problem(sample),
      label(rank + 1, "", `${Atlas.threeDigits(peak)} ${role === 0 ? "image" : "text"}`))));

  /** Show real and simulated activations on one held-out sample. */
  Atlas.heldOutSample = ([id, draw, realImage, realText, peak], simulated, scale) => later(id, (sample) => {
    const [real, text] = [bytesOf(realImage), bytesOf(realText)];
    const [predicted, predictedText] = simulated ? [bytesOf(simulated[0]), bytesOf(simulated[1])] : [new Uint8Array(0), new Uint8Array(0)];
    const both = text.map((byte, place) => Math.max(byte, predictedText[place] || 0));
    const part = stretch(sample, both);
    const cut = part[1] - part[0] < sample.tokens.length;
    return h("figure", { class: "exemplar pair" },
      sample.grid || sample.problem ? h("div", { class: "sides" },
        h("div", {}, h("p", { class: "side" }, "Real"), Atlas.view(sample, real, { what: "Real activation" })),
        h("div", {}, h("p", { class: "side" }, "Simulated"), Atlas.view(sample, predicted, { what: "Simulated activation" }))) : null,
      h("figcaption", {}, problem(sample),
        label(draw === "exemplar" ? "Exemplar" : "Random", sample.id,
          [`r `, h("b", {}, Atlas.signed(simulated?.[2])), `, peak ${Atlas.threeDigits(peak)}`]),
        sample.tokens.length ? h("div", { class: "rows" },
          tokenText(sample, text, scale, part, "real"), tokenText(sample, predictedText, null, part, "simulated")) : null,
        wholeText(sample, [[text, scale, "real"], [predictedText, null, "simulated"]], cut)));
  });
})();
