import { element } from "./element.js";
import { cosine } from "./similarity.js";

export const MOST_COMPARED = 8;

/** The lines that the heat map shows: those picked, else the first ones. */
export function comparedOf(lines, picked) {
  return picked.size > 0 ? [...picked] : lines.slice(0, MOST_COMPARED);
}

/** The vectors that were found in an index, by their lines; what is not among them is no longer picked. */
export function vectorsOf(items, picked) {
  const rows = new Map(items.filter((item) => item.vector).map((item) => [item.line, item]));
  for (const line of picked) if (!rows.has(line)) picked.delete(line);
  return rows;
}

/** Draw the cosines of a few lines with each other into a table; `found` holds their vectors, `legend` names them. */
export function drawHeatMap(table, legend, lines, found) {
  const ready = lines.filter((line) => found.has(line));
  const heading = (text, scope, more = []) => element("th", { scope, textContent: text }, more);
  const numbers = ready.map((line, place) => element("th", { scope: "col", textContent: place + 1, title: line }));
  const rows = ready.map((line, place) =>
    element("tr", {}, [
      heading(`${place + 1} `, "row", [element("span", { textContent: line, title: line })]),
      ...ready.map((other) => cell(cosine(found.get(line).vector, found.get(other).vector))),
    ]),
  );
  table.tHead.replaceChildren(element("tr", {}, [element("td"), ...numbers]));
  table.tBodies[0].replaceChildren(...rows);
  legend.replaceChildren(...ready.map((line) => element("li", { textContent: line })));
}

function cell(value) {
  const made = element("td", { textContent: value.toFixed(2) });
  const heat = Math.round(100 * Math.max(0, value));
  made.style.setProperty("--heat", `${heat}%`);
  made.className = heat >= 86 ? "hot" : heat >= 62 ? "warm" : ""; // the ink of a contrast of 4.5 or more, style.css
  return made;
}
