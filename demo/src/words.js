import { MOST_LINES } from "./lines.js";
import { SHOWN } from "./results.js";

const ALIEN = 0.3; // mean cosine of an index to this model's own vectors below which they are not of one space

export function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

/** What was read of the text and what was not; `encoder` may not be there yet. */
export function countsOf({ lines, repeated, beyond }, encoder, isDocument, limit) {
  const cut = lines.filter((line) => encoder?.found.get(line)?.isCut).length;
  const unread = lines.filter((line) => encoder?.unread.has(line)).length;
  const parts = [plural(lines.length, isDocument ? "passage" : "sentence")];
  if (repeated) parts.push(`${plural(repeated, "repeated line")} left out`);
  if (beyond) parts.push(`only the first ${MOST_LINES.toLocaleString("en")} are used, ${beyond} more are not`);
  if (cut) parts.push(`${plural(cut, "line")} cut at ${limit} tokens`);
  if (unread) parts.push(`${plural(unread, "line")} could not be read`);
  return `${parts.join("; ")}.`;
}

/** What stands beside a line whose end the model does not read. */
export function noteOf(entry, limit) {
  return entry?.isCut ? `cut: ${entry.tokens} tokens, of which the first ${limit} are read` : "";
}

/** What stands under the list of a text: what to do, or how much of it is shown. */
export function textHint(lines, asked, items) {
  if (lines.length === 0) return "No sentences yet: paste some, one a line, or drop a text file.";
  if (!asked) return "Type a query to order the sentences by how near they are.";
  return items.length > SHOWN ? `The nearest ${SHOWN} of ${plural(items.length, "sentence")}.` : "";
}

/** What stands under the list of an index. */
export function indexHint(index, items) {
  return items.length ? `The nearest ${items.length} of ${plural(index.rows, "row")}.` : "Type a query to search the index.";
}

export function indexFacts({ name, rows, columns, texts }) {
  const numbered = texts ? "" : "; the lines of the box are not as many, so rows have their numbers";
  return `${name}: ${plural(rows, "row")} of ${columns} numbers${numbered}.`;
}

/** Warn of an index whose vectors of its own texts are far from those of this model; "" of one that is near. */
export function alienWarning(index, found) {
  const mean = index.nearness(found);
  const words = `The vectors of ${index.name} are not of this model's space: of ${plural(index.checked.length, "text")}`;
  return mean < ALIEN ? `${words} the mean cosine is ${mean.toFixed(2)}. It needs those of its teacher, or its own.` : "";
}
