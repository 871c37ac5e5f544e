// Panels of the diagram: how large they are, and where values lie in them.

import { data, views } from "./charts.js";

export const NARROW = 600; // of a window, in pixels: a phone
const AXIS = { wide: 116, narrow: 84 }; // room left of the panels, and around them
const LABELS = { wide: 88, narrow: 60 }; // right of each for the names of its lines

export const titleOf = (panel) => data.points.titles[panel];

// Panels beside and below each other so that they fill the window.
export function panelSizes(count, width, height) {
  let best = { score: 0 };
  const size = width < NARROW ? "narrow" : "wide";
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const across = (width - AXIS[size]) / columns - LABELS[size];
    const up = Math.max(150, Math.min(640, (height - 70) / rows - 52));
    const score = Math.min(across, 1.5 * up) - 12 * (rows * columns - count);
    if (columns === 1 || score > best.score)
      best = { columns, width: Math.max(110, across), height: up, score };
  }
  return best;
}

// An axis of the diagram in pixels from its lower end, and back.
export function axisOf(view, name) {
  const scale = view.scale(name);
  const [low, high] = scale.domain();
  const size = views.diagram.spec.spec[name === "x" ? "width" : "height"];
  const log = scale.type === "log";
  return {
    low,
    high,
    size,
    to: (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)) * size,
    from: (place) => (log ? low * (high / low) ** (place / size) : low + ((high - low) * place) / size),
  };
}
