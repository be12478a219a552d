export const MOST_WORDS = 80; // of a passage, but for a sentence that is longer

// A language without spaces has a word for about every character.
const UNSPACED = /[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]/gu;
const sentences = new Intl.Segmenter(undefined, { granularity: "sentence" });

function words(text) {
  return text.split(/\s+/).filter(Boolean).length + (text.match(UNSPACED)?.length ?? 0);
}

/** Part what has no end of a sentence for too long, as a table has not. */
function parts(sentence) {
  if (words(sentence) <= 2 * MOST_WORDS) return [sentence];
  const all = sentence.split(/\s+/);
  const count = Math.ceil(all.length / MOST_WORDS);
  return Array.from({ length: count }, (_, part) => all.slice(part * MOST_WORDS, (part + 1) * MOST_WORDS).join(" "));
}

/** Cut a document into passages of whole sentences, none of which reaches over an empty line. */
export function cutIntoPassages(text) {
  const found = [];
  for (const paragraph of text.split(/(?:\r\n|\r|\n)[ \t]*(?:\r\n|\r|\n)/)) {
    let passage = "";
    for (const { segment } of sentences.segment(paragraph.replace(/\s+/g, " "))) {
      for (const part of parts(segment.trim())) {
        if (passage && words(passage) + words(part) > MOST_WORDS) {
          found.push(passage);
          passage = "";
        }
        passage = passage ? `${passage} ${part}` : part;
      }
    }
    if (passage) found.push(passage);
  }
  return found;
}
