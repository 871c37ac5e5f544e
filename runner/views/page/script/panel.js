// The panel beside the diagram: what is said of the chosen point and of the one it is compared with.

import { byId, data } from "./charts.js";
import { BRUSHED } from "./curves.js";
import { agreement, boundariesAt, comparison, numbersOf, placeOf, tableOf } from "./describe.js";

const MOST_CURVES = 40; // of brushed cells

// The chosen points, and what is brushed where it is not more than curves can show.
export function curvesOf(id, second, points, brushed) {
  const ids = [id, second].filter((one) => one !== null);
  const others = brushed && brushed.size <= MOST_CURVES ? [{ name: BRUSHED, members: [...brushed] }] : [];
  const named = ids.map((one, place) => ({
    name: ids.length > 1 ? "AB"[place] : "chosen",
    members: points[one].cells,
  }));
  return [...others, ...named];
}

export function describePoints(id, second, points, state) {
  const two = second !== null && second !== id;
  byId("point").textContent =
    id === null ? "" : `${two ? "A: " : ""}${placeOf(id)}: ${agreement(points[id], state.step)}`;
  byId("other").textContent = two ? `B: ${placeOf(second)}: ${agreement(points[second], state.step)}` : "";
  byId("ends").replaceChildren();
  byId("numbers").replaceChildren();
  byId("cells").textContent =
    id === null
      ? ""
      : points[id].cells
          .map((cell) => data.cells.id[cell])
          .slice(0, 6)
          .join(" ");
  if (id === null) return;
  const lines = boundariesAt(id, state);
  const head = [data.points.titles[data.points.panel[id]], `at ${data.axes.x} ${data.points.x[id]}`]
    .filter(Boolean)
    .join(", ");
  if (lines.length) byId("ends").append(tableOf([head, `${data.axes.y}, 95 %`, "as measured"], lines));
  byId("numbers").append(
    two
      ? tableOf(["", "A", "B"], comparison(points[id], points[second], state.step))
      : tableOf(["measure", "median", "range of seeds"], numbersOf(points[id], state.step)),
  );
}
