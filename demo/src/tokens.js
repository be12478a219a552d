import { Tensor } from "@huggingface/transformers";

/**
 * Make the function that turns a text into what the model reads, cut as Python's tokenizers cut.
 *
 * transformers.js cuts a long text's ids at the limit, and the closing special token with them; every Python runtime
 * keeps that token, and the two vectors would differ.
 */
export function cutter(tokenizer) {
  const empty = tokenizer.encode("");
  const word = tokenizer.encode("a");
  const opening = empty.findIndex((id, place) => id !== word[place]);
  const closing = opening < 0 ? [] : empty.slice(opening);
  const limit = tokenizer.model_max_length;
  return (text) => {
    const all = tokenizer.encode(text);
    const isCut = all.length > limit;
    const ids = isCut ? [...all.slice(0, limit - closing.length), ...closing] : all;
    const input = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    return {
      inputs: { input_ids: input(ids), attention_mask: input(ids.map(() => 1)) },
      tokens: all.length,
      isCut,
    };
  };
}
