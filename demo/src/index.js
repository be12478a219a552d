import { readNpy } from "./npy.js";
import { cosine } from "./similarity.js";

export const MOST_INDEX_BYTES = 1_000_000_000;
const VECTORS = ["embedding", "embeddings", "vector", "vectors", "label"];
const SPARE = 4; // times as many rows that are looked at, for those that have one text
const CHECKED = 3; // texts of which the page's model makes vectors too, to see that they are of one space
const CHUNK = 5000; // rows of a .parquet that are lists of numbers at a time

export function isIndex(file) {
  return /\.(npy|parquet)$/i.test(file.name);
}

/** Vectors that another model, as the teacher, has made, with the texts of their rows where they are known. */
export class Index {
  /**
   * @param file an .npy or a .parquet
   * @param lines those of the box: the texts of an .npy, if they are as many as its rows
   */
  static async read(file, lines) {
    if (file.size > MOST_INDEX_BYTES)
      throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; at most ${MOST_INDEX_BYTES / 1e6} MB are read.`);
    const buffer = await file.arrayBuffer();
    const table = /\.npy$/i.test(file.name) ? readNpy(buffer, file.name) : await readParquet(buffer, file.name);
    const texts = table.texts ?? (lines.length === table.rows ? lines : undefined);
    return new Index(file.name, { ...table, texts });
  }

  constructor(name, { rows, columns, vectors, texts }) {
    Object.assign(this, { name, rows, columns, vectors, texts });
    this.checked = [...new Set(texts?.filter(Boolean).slice(0, CHECKED))];
    this.norms = new Float32Array(rows);
    for (let row = 0, at = 0; row < rows; row++) {
      let square = 0;
      for (const end = at + columns; at < end; at++) square += vectors[at] ** 2;
      this.norms[row] = Math.sqrt(square) || 1;
    }
  }

  /** Refuse vectors that are not as wide as those of the page's model. */
  checkWidth(width) {
    if (width === this.columns) return;
    const rows = `${this.name} has ${this.columns} numbers a row`;
    throw new Error(`${rows}, and this model's vectors ${width}: they are of another model.`);
  }

  vector(row) {
    return this.vectors.subarray(row * this.columns, (row + 1) * this.columns);
  }

  /** The text of a row, or its number. */
  nameOf(row) {
    return this.texts?.[row] || `row ${(row + 1).toLocaleString("en")}`;
  }

  /** Mean cosine of the checked texts to what the page's model makes of them; undefined until it has. */
  nearness(found) {
    if (this.checked.length === 0 || !this.checked.every((text) => found.has(text))) return undefined;
    this.mean ??= this.checked
      .map((text) => cosine(found.get(text).vector, this.vector(this.texts.indexOf(text))) / this.checked.length)
      .reduce((sum, each) => sum + each);
    return this.mean;
  }

  /** The rows that are nearest to a query, nearest first, each text once: { line, score, vector }. */
  nearest(query, count) {
    if (this.asked !== query) [this.asked, this.answer] = [query, this.search(query, count)];
    return this.answer;
  }

  search(query, count) {
    const { rows, columns, vectors, norms } = this;
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
      const line = this.nameOf(row);
      if (!found.has(line)) found.set(line, { line, score: scores[row], vector: this.vector(row) });
      if (found.size === count) break;
    }
    return [...found.values()];
  }
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
