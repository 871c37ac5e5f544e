// The picture of a measure between measured points: bilinear on the scales of the axes, and nothing where one of
// the four neighbours is not known or beyond the outermost points.

const PIXELS = 14; // between two neighbours

// The value at (i + u, j + v) between points of a table [row][column]; null where a neighbour is missing.
export function between(table, i, j, u, v) {
  const corners = [table[j][i], table[j][i + 1], table[j + 1][i], table[j + 1][i + 1]];
  if (corners.some((value) => value === null || value === undefined)) return null;
  return (corners[0] * (1 - u) + corners[1] * u) * (1 - v) + (corners[2] * (1 - u) + corners[3] * u) * v;
}

// points: {x, y, value}. logs: which of x, y and the value are logarithmic. Returns the picture with its borders.
export function picture(points, logs, color) {
  const across = distinct(points.map((point) => point.x));
  const up = distinct(points.map((point) => point.y));
  if (across.length < 2 || up.length < 2) return null;
  const table = up.map(() => across.map(() => null));
  for (const { x, y, value } of points)
    if (value !== null && !(logs.value && value <= 0))
      table[up.indexOf(y)][across.indexOf(x)] = logs.value ? Math.log(value) : value;
  const places = {
    x: across.map((x) => (logs.x ? Math.log(x) : x)),
    y: up.map((y) => (logs.y ? Math.log(y) : y)),
  };
  const canvas = document.createElement("canvas");
  canvas.width = PIXELS * (across.length - 1);
  canvas.height = PIXELS * (up.length - 1);
  const paper = canvas.getContext("2d");
  let drawn = false;
  for (let row = 0; row < canvas.height; row++)
    for (let column = 0; column < canvas.width; column++) {
      const [i, u] = located(places.x, (column + 0.5) / canvas.width);
      const [j, v] = located(places.y, (row + 0.5) / canvas.height);
      const value = between(table, i, j, u, v);
      if (value === null) continue;
      paper.fillStyle = color(logs.value ? Math.exp(value) : value);
      paper.fillRect(column, canvas.height - 1 - row, 1, 1);
      drawn = true;
    }
  if (!drawn) return null;
  return { url: canvas.toDataURL(), x0: across[0], x1: across.at(-1), y0: up[0], y1: up.at(-1) };
}

// The interval that holds a share of the way from the first place to the last, and the share inside it.
function located(places, share) {
  const at = places[0] + share * (places.at(-1) - places[0]);
  let i = 0;
  while (i < places.length - 2 && places[i + 1] <= at) i++;
  return [i, (at - places[i]) / (places[i + 1] - places[i])];
}

function distinct(values) {
  return [...new Set(values)].sort((a, b) => a - b);
}
