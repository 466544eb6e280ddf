"use strict";
/* Explanations of a neuron, each with its scores. */
(() => {
  const { h, foreign } = Atlas;

  const paragraph = (name, text) => (text ? h("div", {}, h("dt", {}, name), foreign("dd", {}, text)) : null);

  const words = (explanation) => {
    if (explanation.status !== "ok") {
      return h("p", { class: "failed" }, h("b", {}, "No explanation:"), " ", h("span", {}, Atlas.plain(explanation.status)),
        explanation.reason ? [" ", foreign("span", {}, explanation.reason)] : null);
    }
    return [
      h("blockquote", { dir: "auto" }, h("p", {}, explanation.text)),
      explanation.evidence_for || explanation.evidence_against ? h("dl", { class: "evidence" },
        paragraph("for", explanation.evidence_for), paragraph("against", explanation.evidence_against)) : null,
    ];
  };

  const pair = (name, value, kind) => h("div", { class: kind || null }, h("dt", {}, name), h("dd", {}, value));

  const range = (low, high, write) => (Atlas.known(low) && Atlas.known(high)
    ? pair(Atlas.term("95 % interval", "95\u00a0%"), `${write(low)} to ${write(high)}`) : null);

  const measured = (name, value) => (Atlas.known(value) ? `${name} ${Atlas.signed(value)}` : null);

  const verdict = (score) => {
    if (!score.verdict) return null;
    const [word, numbers] = score.verdict;
    return h("p", { class: "verdict" }, h("b", { class: `verdict-${word}` }, Atlas.term(word)), `: ${numbers}`);
  };

  /** Return what a measure would be by chance, as an addition to its value. */
  const byChance = (measure, score) => (
    measure === "purity" && Atlas.known(score.random_purity) ? ` (${Atlas.signed(score.random_purity)} by chance)` : "");

  /** Return a score over all tokens. parts: the same score over visual or text tokens alone. */
  const scoreLine = (score, parts) => {
    if (score.status !== "ok" || !Atlas.known(score.correlation)) {
      return h("div", { class: "score" }, h("p", { class: "failed" }, h("b", {}, "No score:"), " ",
        h("span", {}, Atlas.plain(score.status)), score.reason ? [" ", foreign("span", {}, score.reason)] : null,
        " ", foreign("span", {}, score.simulator)));
    }
    const alone = parts.map((part) => `; ${part.tokens} tokens alone ${part.status === "ok" ? Atlas.signed(part.correlation) : Atlas.plain(part.status)}`);
    const further = [
      measured("Spearman", score.spearman), measured("AUROC of active tokens", score.auroc),
      measured("explained variance", score.explained_variance),
      measured("exemplars against random samples: AUROC", score.detection_auroc),
      measured("balanced accuracy", score.balanced_accuracy),
    ].filter(Boolean);
    return h("div", { class: "score" }, Atlas.scoreScale(score), h("div", {}, verdict(score),
      h("dl", {},
        pair(Atlas.term("score"), Atlas.signed(score.correlation), "own"), range(score.ci_low, score.ci_high, Atlas.signed),
        score.strongest ? pair(Atlas.term("control", "strongest control"), `${Atlas.signed(score.strongest[1])}, ${score.strongest[2]}`, "other") : null,
        Atlas.known(score.control_other) ? pair(Atlas.term("other neuron"), Atlas.signed(score.control_other)) : null,
        Atlas.known(score.control_empty) ? pair(Atlas.term("no words"), Atlas.signed(score.control_empty)) : null,
        Atlas.known(score.control_blind) ? pair(Atlas.term("no explanation"), Atlas.signed(score.control_blind)) : null,
        Atlas.known(score.margin) ? pair(Atlas.term("margin"), Atlas.difference(score.margin)) : null,
        range(score.margin_low, score.margin_high, Atlas.difference),
        Atlas.known(score.q) ? pair(Atlas.term("q-value", "q"), Atlas.signed(score.q, 3)) : null,
        [["purity", "purity"], ["recall", "recall"], ["top_random_correlation", "top and random"]].map(([measure, name]) => (
          Atlas.known(score[measure]) ? pair(Atlas.term(name), Atlas.signed(score[measure]) + byChance(measure, score)) : null)),
        ["broader", "narrower"].map((level) => (Atlas.known(score[`control_${level}`])
          ? pair(Atlas.term(level), h("span", { title: score[`${level}_claim`] || "" }, Atlas.signed(score[`control_${level}`]))) : null))),
      h("p", { class: "quiet" }, Atlas.term("simulator", "simulated"), " by ", foreign("bdi", {}, score.simulator),
        `, on ${Atlas.count(score.n_samples || 0)} samples`,
        score.n_near_misses ? [` (${Atlas.count(score.n_near_misses)} `, Atlas.term("near miss", "near misses"), ")"] : null, `, ${Atlas.count(score.n_tokens || 0)} tokens`, alone),
      further.length ? h("p", { class: "quiet" }, further.join(", ")) : null, Atlas.reading("score_scale")));
  };

  /** Return whether zeroing the neuron costs the words of its explanation more than others. */
  const faithful = (explanation) => {
    const one = explanation.faithful;
    if (!one) return null;
    const words = one.words.map((word, place) => [place ? ", " : "", foreign("bdi", {}, word)]);
    return h("dl", { class: "faithful" },
      Atlas.known(one.faithfulness) ? [
        pair(Atlas.term("faithfulness"), `${Atlas.threeDigits(one.faithfulness)} nats`, "own"),
        pair(Atlas.term("q-value", "q"), Atlas.signed(one.q, 3)),
        pair("its words", [`${Atlas.threeDigits(one.own_change)} (`, words, ")"]),
        pair("other words", Atlas.threeDigits(one.other_change)),
      ] : pair(Atlas.term("faithfulness"), Atlas.plain(one.status)),
      Atlas.known(one.agreement) ? pair(Atlas.term("agreement"), `${Atlas.signed(one.agreement)}, others ${Atlas.signed(one.agreement_other)}`) : null);
  };

  /** Return one explainer's explanation with its scores. */
  Atlas.explanation = (explanation) => {
    const whole = explanation.scores.filter((score) => score.tokens === "all");
    return h("div", { class: "explanation" }, words(explanation),
      h("p", { class: "by" }, foreign("bdi", {}, explanation.explainer), explanation.model ? [", ", foreign("bdi", {}, explanation.model)] : null,
        Atlas.known(explanation.confidence) ? `, ${Atlas.percent(explanation.confidence)} sure` : null),
      whole.length ? whole.map((score) => scoreLine(score,
        explanation.scores.filter((part) => part.tokens !== "all" && part.simulator === score.simulator)))
        : h("p", { class: "score quiet" }, "Not scored."), faithful(explanation));
  };

  /** Return a tab for each name. show(number) fills the panel. Arrow keys move between tabs. */
  Atlas.tabs = (label, names, chosen, panel, show) => {
    const tabs = names.map((name, number) => h("button", {
      type: "button", role: "tab", id: `${panel.id}-tab-${number}`, "aria-controls": panel.id,
      onclick: () => choose(number),
    }, foreign("bdi", {}, name)));
    const choose = (number) => {
      tabs.forEach((tab, at) => {
        tab.setAttribute("aria-selected", String(at === number));
        tab.tabIndex = at === number ? 0 : -1;
      });
      panel.setAttribute("aria-labelledby", tabs[number].id);
      show(number);
    };
    const list = h("div", {
      role: "tablist", class: "tabs", "aria-label": label,
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        event.stopPropagation();
        const next = (tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length;
        choose(next);
        tabs[next].focus();
      },
    }, tabs);
    panel.setAttribute("role", "tabpanel");
    panel.tabIndex = 0;
    choose(chosen);
    return list;
  };
})();
