// Keys that choose points: arrows within a panel, page keys between panels.

import { data } from "./charts.js";

export const MOVES = {
  ArrowLeft: ["x", -1],
  ArrowRight: ["x", 1],
  ArrowDown: ["y", -1],
  ArrowUp: ["y", 1],
  PageDown: ["panel", 1],
  PageUp: ["panel", -1],
};

// The nearest point of a panel in a direction, on the scale of the values themselves.
export function moved(id, key) {
  const { points: table } = data;
  const near = (panel, x, y) => {
    const far = (a, b) => Math.abs(a > 0 && b > 0 ? Math.log(a / b) : a - b);
    const ids = table.x.flatMap((_, one) => (table.panel[one] === panel ? [one] : []));
    return ids.reduce((best, one) =>
      far(table.x[one], x) + far(table.y[one], y) < far(table.x[best], x) + far(table.y[best], y)
        ? one
        : best,
    );
  };
  const [axis, by] = MOVES[key];
  if (axis === "panel") {
    const panel = table.panel[id] + by;
    return table.titles[panel] === undefined ? id : near(panel, table.x[id], table.y[id]);
  }
  const values = [...new Set(table[axis].filter((_, one) => table.panel[one] === table.panel[id]))].sort(
    (a, b) => a - b,
  );
  const next = values[values.indexOf(table[axis][id]) + by] ?? table[axis][id];
  return near(table.panel[id], axis === "x" ? next : table.x[id], axis === "y" ? next : table.y[id]);
}
