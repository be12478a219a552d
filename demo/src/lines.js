export const MOST_LINES = 1000;
export const MOST_BYTES = 2_000_000;

/** Part a text into its lines, each once, and count what was left out: { lines, repeated, beyond }. */
export function readLines(text) {
  const all = text
    .split(/\r\n|\r|\n/)
    .map((line) => line.trim())
    .filter(Boolean);
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
    throw new Error(`${file.name} is not a text file; drop a .txt with a sentence a line.`);
  if (file.size > MOST_BYTES)
    throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${MOST_BYTES / 1e6} MB are read.`);
  return file.text();
}
