// What the reader has asked for, and the fragment of the address that restores it.

export const START = {
  color: "regime",
  step: null,
  where: {},
  pick: null,
  other: null,
  brush: null,
  linear: [],
  hidden: [],
  show: null,
  a: null,
  b: null,
};

const LISTS = ["linear", "hidden", "show"];
const NAMES = { other: "with" };

// Only what differs from the start is written.
export function toFragment(state) {
  const found = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (value === null || value === START[key] || key === "where") continue;
    if (LISTS.includes(key)) {
      if (value.length || START[key] === null) found.set(key, value.join(","));
    } else found.set(NAMES[key] ?? key, key === "brush" ? JSON.stringify(value) : String(value));
  }
  for (const [key, values] of Object.entries(state.where))
    for (const value of values) found.append(`where.${key}`, String(value));
  return found.toString();
}

// What cannot be read is as at the start: a link may be older than the page.
export function fromFragment(text) {
  const state = structuredClone(START);
  const given = new URLSearchParams(text.replace(/^#/, ""));
  for (const key of Object.keys(START)) {
    const value = given.get(NAMES[key] ?? key);
    if (value === null || key === "where") continue;
    if (LISTS.includes(key)) state[key] = value.split(",").filter(Boolean);
    else if (key === "step") state.step = Number.isFinite(Number(value)) ? Number(value) : null;
    else if (key === "brush") state.brush = brushOf(value);
    else state[key] = value;
  }
  for (const [key, value] of given)
    if (key.startsWith("where.")) (state.where[key.slice(6)] ??= []).push(value);
  return state;
}

function brushOf(text) {
  try {
    const brush = JSON.parse(text);
    return typeof brush?.on === "string" && Array.isArray(brush.x) && Array.isArray(brush.y) ? brush : null;
  } catch {
    return null;
  }
}
