/** Cosine of two vectors. */
export function cosine(a, b) {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return dot / Math.sqrt(aa * bb || 1);
}

/** Give the lines that have a vector with their scores, nearest first; of equals the earlier line is first. */
export function rank(query, lines, found) {
  const known = lines.filter((line) => found.has(line));
  const scored = known.map((line) => ({ line, score: cosine(query, found.get(line).vector) }));
  return scored.sort((a, b) => b.score - a.score);
}
