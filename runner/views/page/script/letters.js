// Where the letter of a point stands, and how large it is: off the lines that pass through its middle.

import { data } from "./charts.js";
import { titleOf } from "./places.js";

// The size of all letters, in points: zero where columns have points of their own.
export function letterSize({ width, height }) {
  const most = (key) =>
    Math.max(
      ...data.points.titles.map(
        (_, panel) => new Set(data.points[key].filter((_, id) => data.points.panel[id] === panel)).size,
      ),
    );
  return data.points.scattered.some(Boolean)
    ? 0
    : Math.min(15, (0.5 * width) / most("x"), (0.6 * height) / most("y"));
}

// The lines of each panel in pixels: [[x, y], ...], sorted.
export function inPixels(lines, axes) {
  const found = {};
  for (const line of lines) {
    const own = ((found[line.panel] ??= {})[line.words] ??= []);
    own.push([axes.x.to(line.x), axes.y.to(line.y)]);
  }
  for (const panel of Object.values(found))
    for (const own of Object.values(panel)) own.sort(([a], [b]) => a - b);
  return found;
}

function heightAt(line, x) {
  const right = line.findIndex(([at]) => at >= x - 1e-6);
  if (right < 0) return null;
  const [[x0, y0], [x1, y1]] = [line[Math.max(0, right - 1)], line[right]];
  if (right === 0 && x1 > x + 1e-6) return null;
  return x1 > x0 ? y0 + ((y1 - y0) * (x - x0)) / (x1 - x0) : y1;
}

const SMALLER = [1, 0.85, 0.7]; // sizes of a letter that are tried where lines leave no room

// Where the letter of a point stands, and how large it is: in the middle, or off it where a line passes through the
// middle, and smaller where lines pass everywhere.
export function letterPlace(id, drawn, axes, letters) {
  const tried = SMALLER.map((share) => placed(id, drawn, axes, share * letters));
  const { free, ...place } = tried.find((one) => one.free >= 0.95) ?? tried.at(-1);
  return place;
}

function placed(id, drawn, axes, letters) {
  const { points } = data;
  const lines = Object.values(drawn[titleOf(points.panel[id])] ?? {});
  const [left, x, right] = ["x0", "x", "x1"].map((name) => axes.x.to(points[name][id]));
  const [low, y, high] = ["y0", "y", "y1"].map((name) => axes.y.to(points[name][id]));
  const free = ([across, up]) =>
    Math.min(
      0.7 * letters,
      ...lines
        .map((line) => heightAt(line, across))
        .filter((at) => at !== null)
        .map((at) => Math.abs(at - up)),
    );
  const reach = [Math.max(0, (right - left) / 2 - letters), Math.max(0, (high - low) / 2 - 0.75 * letters)];
  const tried = [
    [0, 0],
    [0, 0.7],
    [0, -0.7],
    [0, 1],
    [0, -1],
    [-0.7, 0],
    [0.7, 0],
    [-0.9, 1],
    [0.9, -1],
    [-0.9, -1],
    [0.9, 1],
  ].map(([across, up]) => [x + across * reach[0], y + up * reach[1]]);
  const best = tried.reduce((one, other) => (free(other) > free(one) + 0.5 ? other : one));
  const found = { letterSize: letters < 6 ? 0 : letters, free: free(best) / (0.7 * letters) };
  return best === tried[0]
    ? { ...found, letterX: points.x[id], letterY: points.y[id] }
    : { ...found, letterX: axes.x.from(best[0]), letterY: axes.y.from(best[1]) };
}
