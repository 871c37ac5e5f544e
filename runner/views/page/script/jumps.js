// Links to places of the page: they move the view and the focus, and leave the address to the state that it holds.

import { byId } from "./charts.js";

export function followJumps() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    const place = link && byId(link.getAttribute("href").slice(1));
    if (!place || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const focused = place.querySelector("h2") ?? place;
    if (!focused.hasAttribute("tabindex")) focused.tabIndex = -1;
    place.scrollIntoView();
    focused.focus({ preventScroll: true });
  });
}
