[...document.querySelectorAll('button, a, input, select, canvas, img, svg[role=img], [role=table]')]
  .filter((one) => !one.hidden && !(one.getAttribute('aria-label') || one.alt || one.innerText?.trim()
    || one.closest('label')?.innerText.trim() || one.title))
  .map((one) => one.outerHTML.slice(0, 120))
