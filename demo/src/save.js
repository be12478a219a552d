/** Offer the vectors of texts, those that have one, as a file; `found` is that of the encoder. */
export function saveVectors({ name, dtype }, texts, found) {
  const sentences = [...new Set(texts.filter((text) => found.has(text)))].map((text) => {
    const { vector, tokens, isCut } = found.get(text);
    return { text, tokens, cut: isCut, vector: [...vector] };
  });
  const content = JSON.stringify({ model: name, dtype, sentences });
  const address = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  const link = Object.assign(document.createElement("a"), { href: address, download: "vectors.json" });
  link.click();
  URL.revokeObjectURL(address);
}
