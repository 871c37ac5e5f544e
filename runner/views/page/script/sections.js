// The sections below the diagram: drawn when they come near, each with its scales and its files.

import { arranged, byId, clone, data, draw, element, linearized, saveChart, views } from "./charts.js";

export const sectionNames = Object.keys(data.rooms);

export async function drawSection(id, state) {
  const channels = ["x", "y"].filter((channel) => state.linear.includes(`${id}.${channel}`));
  await draw(id, linearized(arranged(clone(data.charts[id]), id, ...data.rooms[id]), channels));
}

// Buttons of a chart: a scale for each named channel, SVG and PNG.
export function tools(id, scales, state, toggle) {
  const buttons = Object.entries(scales).map(([name, title]) => {
    const linear = state().linear.includes(name);
    const button = element(
      "button",
      { type: "button", class: "tool", "aria-pressed": String(linear), "data-scale": name },
      `linear ${title}`,
    );
    button.addEventListener("click", () => {
      toggle(name);
      button.setAttribute("aria-pressed", String(state().linear.includes(name)));
    });
    return button;
  });
  const files = ["svg", "png"].map((format) =>
    element(
      "button",
      {
        type: "button",
        class: "tool",
        "data-file": `${id}.${format}`,
        "aria-label": `${format.toUpperCase()} of this chart`,
        onclick: () => views[id] && saveChart(id, format),
      },
      format.toUpperCase(),
    ),
  );
  const bar = element("div", { class: "tools" }, ...buttons, ...files);
  byId(id).before(bar);
}

// Calls once for each node when it comes near the window, and for the rest one by one when the browser is idle:
// who prints the page, or takes a picture of it, has all of its charts.
const idle = window.requestIdleCallback ?? ((call) => setTimeout(call, 50));
let nearing = null;

export function whenNearOrIdle(ids, call) {
  nearing?.disconnect();
  const left = new Set(ids);
  const once = (id) => (left.delete(id) ? call(id) : null);
  const observer = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.isIntersecting && once(entry.target.id)),
    { rootMargin: "400px" },
  );
  nearing = observer;
  ids.forEach((id) => observer.observe(byId(id)));
  const next = async () => {
    if (nearing !== observer || !left.size) return;
    await once([...left][0]);
    idle(next);
  };
  idle(next);
}

// Calls with each node when it comes into view and when it leaves.
let watching = null;

export function whileSeen(ids, call) {
  watching?.disconnect();
  watching = new IntersectionObserver((entries) =>
    entries.forEach((entry) => call(entry.target.id, entry.isIntersecting)),
  );
  ids.forEach((id) => watching.observe(byId(id)));
}
