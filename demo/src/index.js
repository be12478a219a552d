import { readNpy } from "./npy.js";

export const MOST_INDEX_BYTES = 1_000_000_000;
const VECTORS = ["embedding", "embeddings", "vector", "vectors", "label"];
const SPARE = 4; // of the rows that are looked at, for those that have one text
const CHUNK = 5000; // rows of a .parquet that are lists of numbers at a time

export function isIndex(file) {
  return /\.(npy|parquet)$/i.test(file.name);
}

/**
 * Read vectors that another model, as the teacher, has made: { name, rows, columns, vectors, norms, texts }.
 *
 * `lines` are those of the box: of an .npy they are the texts if they are as many as its rows, else texts is undefined.
 */
export async function readIndex(file, lines) {
  if (file.size > MOST_INDEX_BYTES)
    throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; at most ${MOST_INDEX_BYTES / 1e6} MB are read.`);
  const buffer = await file.arrayBuffer();
  const table = /\.npy$/i.test(file.name) ? readNpy(buffer, file.name) : await readParquet(buffer, file.name);
  const { rows, columns, vectors } = table;
  const texts = table.texts ?? (lines.length === rows ? lines : undefined);
  const norms = new Float32Array(rows);
  for (let row = 0, at = 0; row < rows; row++) {
    let square = 0;
    for (const end = at + columns; at < end; at++) square += vectors[at] ** 2;
    norms[row] = Math.sqrt(square) || 1;
  }
  return { name: file.name, rows, columns, vectors, norms, texts };
}

async function readParquet(buffer, name) {
  const { parquetMetadata, parquetReadObjects } = await import("hyparquet"); // loaded where it is wanted
  let metadata;
  try {
    metadata = parquetMetadata(buffer);
  } catch {
    throw new Error(`${name} is not a parquet file that can be read.`);
  }
  const names = metadata.schema.slice(1).map((each) => each.name);
  const column = VECTORS.find((each) => names.includes(each));
  if (!column) throw new Error(`${name} has no column of vectors; name it embedding.`);
  const text = names.includes("text") ? "text" : undefined;
  const rows = Number(metadata.num_rows);
  const texts = text && [];
  let vectors, columns;
  for (let start = 0; start < rows; start += CHUNK) {
    const end = Math.min(rows, start + CHUNK);
    const options = { file: buffer, metadata, columns: [column, text].filter(Boolean), rowStart: start, rowEnd: end };
    const found = await parquetReadObjects(options).catch((error) => {
      throw new Error(`${name} cannot be read (${error.message}); write it without compression, or with snappy.`);
    });
    columns ??= found[0][column].length;
    vectors ??= new Float32Array(rows * columns);
    found.forEach((row, place) => {
      vectors.set(row[column], (start + place) * columns);
      texts?.push(String(row[text]));
    });
  }
  return { rows, columns, vectors, texts };
}

/** The text of a row, or its number. */
export function nameOf(index, row) {
  return index.texts?.[row] || `row ${(row + 1).toLocaleString("en")}`;
}

/** The rows that are nearest to a query, nearest first, each text once: { line, score, vector }. */
export function nearest(index, query, count) {
  const { rows, columns, vectors, norms } = index;
  const size = Math.hypot(...query) || 1;
  const scores = new Float32Array(rows);
  for (let row = 0, at = 0; row < rows; row++) {
    let dot = 0;
    for (let column = 0; column < columns; column++) dot += query[column] * vectors[at++];
    scores[row] = dot / (norms[row] * size);
  }
  const least = scores.toSorted().at(-Math.min(rows, SPARE * count)); // numbers alone are sorted ten times as fast
  const order = [...scores.keys()].filter((row) => scores[row] >= least).sort((a, b) => scores[b] - scores[a]);
  const found = new Map();
  for (const row of order) {
    const line = nameOf(index, row);
    const vector = vectors.subarray(row * columns, (row + 1) * columns);
    if (!found.has(line)) found.set(line, { line, score: scores[row], vector });
    if (found.size === count) break;
  }
  return [...found.values()];
}
