import { cutIntoPassages } from "./passages.js";

export const MOST_LINES = 1000;
export const MOST_BYTES = 2_000_000;

/** The lines of a text as they stand, with empty ones. */
export function rawLines(text) {
  const lines = text.split(/\r\n|\r|\n/);
  return lines.at(-1) === "" ? lines.slice(0, -1) : lines;
}

/**
 * Part a text into its lines, or a document into passages, each once: { lines, repeated, beyond }; the last two count
 * what was left out.
 */
export function readLines(text, isDocument = false) {
  const pieces = isDocument ? cutIntoPassages(text) : rawLines(text);
  const all = pieces.map((line) => line.trim()).filter(Boolean);
  const unique = [...new Set(all)];
  return {
    lines: unique.slice(0, MOST_LINES),
    repeated: all.length - unique.length,
    beyond: Math.max(0, unique.length - MOST_LINES),
  };
}

/** Read a text file that was dropped or chosen; an Error says in a sentence why it is not read. */
export async function readTextFile(file) {
  if (!file.type.startsWith("text/") && !/\.(txt|md|csv|tsv)$/i.test(file.name))
    throw new Error(
      `${file.name} is not a text file, and no index; drop a .txt, or the vectors of a model as .npy or .parquet.`,
    );
  if (file.size > MOST_BYTES)
    throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${MOST_BYTES / 1e6} MB are read.`);
  return file.text();
}
