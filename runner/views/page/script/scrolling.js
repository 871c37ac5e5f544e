// What is wider than its place says so: it fades where more of it lies, and arrow keys move it.

const ROOM = 2; // pixels, less than which is rounding

function mark(node) {
  const left = node.scrollLeft > ROOM;
  const right = node.scrollLeft + node.clientWidth < node.scrollWidth - ROOM;
  node.dataset.more = [left && "left", right && "right"].filter(Boolean).join(" ");
  if ((left || right) && !node.hasAttribute("tabindex")) node.tabIndex = 0;
}

export function markScrolling() {
  const sizes = new ResizeObserver((entries) =>
    entries.forEach(({ target }) => {
      const place = target.closest(".scroll, .chart, pre");
      if (place) mark(place); // what was taken away has none
    }),
  );
  const watch = (node) => {
    node.addEventListener("scroll", () => mark(node), { passive: true });
    for (const one of [node, ...node.children]) sizes.observe(one);
  };
  // Tables and charts come and go; their place does not, or comes with them.
  const places = (root) => root.querySelectorAll(".scroll, .chart, pre");
  places(document).forEach(watch);
  new MutationObserver((changes) => {
    for (const { target, addedNodes } of changes) {
      const place = target.closest?.(".scroll, .chart");
      for (const node of addedNodes)
        if (place) node.nodeType === 1 && sizes.observe(node);
        else if (node.matches?.(".scroll")) watch(node);
    }
  }).observe(document.querySelector("main"), { childList: true, subtree: true });
}
