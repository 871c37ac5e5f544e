// How large the letters of the diagram are, and where the two of a tie stand.

import { data } from "./charts.js";

const TIED = 0.8; // of the size of the others: two share a rectangle

// The size of all letters, in points: zero where columns have points of their own.
export function letterSize({ width, height }) {
  const most = (key) =>
    Math.max(
      ...data.points.titles.map(
        (_, panel) => new Set(data.points[key].filter((_, id) => data.points.panel[id] === panel)).size,
      ),
    );
  const size = data.points.scattered.some(Boolean)
    ? 0
    : Math.min(15, (0.5 * width) / most("x"), (0.6 * height) / most("y"));
  return size < 6 ? 0 : size;
}

// Letters stand in the middle of their rectangles, over the lines; the two of a tie in the middle of its halves, or,
// where a measure is the colour of both, side by side.
export function letterRows(cell, second, axes, size, halved) {
  const { x, y, x0, x1 } = cell;
  const place = { letterX: x, letterY: y, letterSize: size };
  if (!second) return [Object.assign(cell, place)];
  const letter = `${cell.letter}/${second.letter}`;
  if (!halved) return [Object.assign(cell, place, { letter, letterSize: 0.7 * size })];
  const [left, right] = [axes.x.to(x0), axes.x.to(x1)];
  const at = (share) => axes.x.from(left + share * (right - left));
  Object.assign(cell, place, { letterX: at(0.25), letterSize: TIED * size });
  return [cell, { ...cell, ...second, kind: "second", letterX: at(0.75) }];
}
