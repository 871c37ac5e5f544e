// Panels of the diagram: how large they are, and where values lie in them.

import { data, shown, views } from "./charts.js";

export const NARROW = 600; // of a window, in pixels: a phone
const AROUND = 38; // pixels left and right of all panels, but for the labels of their axis

export const titleOf = (panel) => data.points.titles[panel];

// The width of the longest of some words in the diagram, in pixels.
export function longest(words, size) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `${size}px ${data.charts.diagram.config.font}`;
  return Math.ceil(Math.max(0, ...words.map((one) => pen.measureText(one).width)));
}

// Pixels beside the panels, the labels of their axis among them.
function axisRoom() {
  const { config, spec } = data.charts.diagram;
  const { axis, scale } = spec.layer[0].encoding.y;
  return AROUND + longest((axis.values ?? scale.domain).map(shown), config.axis.labelFontSize);
}

// Panels beside and below each other so that they fill the window; `names` is the room right of each.
export function panelSizes(count, width, height, names) {
  let best = { score: 0 };
  const axis = axisRoom();
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const across = (width - axis) / columns - names;
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
