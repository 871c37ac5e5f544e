// Which cells are shown: a button per value of each key, and the search for a cell by its id.

import { byId, data, element, shown } from "./charts.js";
import { columnOf } from "./table.js";

const MOST_VALUES = 40;

export function drawFilters(state, changed) {
  const keys = [...data.free, ...(data.cells.status.values.length > 1 ? ["status"] : [])];
  byId("filters").replaceChildren(
    ...keys.map((key) => {
      const { values } = columnOf(data.cells, key);
      const wanted = state.where[key] ?? [];
      const chips = values.slice(0, MOST_VALUES).map((value) => {
        const text = String(value);
        const pressed = wanted.includes(text);
        const toggle = () => changed(key, pressed ? wanted.filter((one) => one !== text) : [...wanted, text]);
        return element(
          "button",
          {
            type: "button",
            class: "chip-button",
            "aria-pressed": String(pressed),
            "data-key": key,
            "data-value": text,
            onclick: toggle,
          },
          shown(value),
        );
      });
      const more =
        values.length > MOST_VALUES
          ? [element("span", { class: "note" }, `and ${values.length - MOST_VALUES} more`)]
          : [];
      return element(
        "div",
        { class: "filter", role: "group", "aria-label": key },
        element("span", { class: "key" }, key),
        ...chips,
        ...more,
      );
    }),
  );
}

export function filterWords(state) {
  return Object.entries(state.where)
    .filter(([, values]) => values.length)
    .map(([key, values]) => `${key}=${values.join(",")}`)
    .join(" ");
}

// Cells whose id holds a text; with or without the version before it.
export function foundCells(text) {
  const wanted = text.trim().toLowerCase();
  return wanted ? data.cells.id.flatMap((id, cell) => (id.toLowerCase().includes(wanted) ? [cell] : [])) : [];
}
