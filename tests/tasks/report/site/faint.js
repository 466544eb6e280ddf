(() => {
  const channels = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    const over = [];
    for (let at = one; at; at = at.parentElement) over.push(channels(getComputedStyle(at).backgroundColor));
    return over.reverse().reduce((base, [r, g, b, a]) => [r, g, b].map((c, i) => c * a + base[i] * (1 - a)), [255, 255, 255]);
  };
  const faint = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const one = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || one.closest('svg, .unseen, .skip, [hidden], option, [aria-disabled]') || !one.checkVisibility()) continue;
    const [first, second] = [light(channels(getComputedStyle(one).color)), light(ground(one))].sort((a, b) => b - a);
    const ratio = (first + 0.05) / (second + 0.05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${one.className} ${walk.currentNode.textContent.slice(0, 30)}`);
  }
  return faint;
})()
