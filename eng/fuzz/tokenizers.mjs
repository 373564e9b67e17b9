// The other side of the tokenizers: Hugging Face's own library. One request a line, one answer a line; see README.md.
import { createInterface } from "node:readline";
import tokenizers from "tokenizers";

const { Tokenizer } = tokenizers;
const ids = async (tokenizer, texts, addSpecialTokens) => (await tokenizer.encodeBatch(texts, { addSpecialTokens })).map((e) => e.getIds());

// { t: tokenizer.json, x: texts, d: lists of ids } to { p: plain ids, s: ids with special tokens, c: their texts, d: texts of d }, or { e: why }.
async function answer({ t, x, d }) {
  const tokenizer = Tokenizer.fromString(t);
  // As transformers does: neither is applied unless a call asks for it.
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  const p = await ids(tokenizer, x, false);
  const s = await ids(tokenizer, x, true);
  const texts = async (lists) => (lists.length === 0 ? [] : tokenizer.decodeBatch(lists, false));
  return { p, s, c: await texts(s), d: await texts(d) };
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let out;
  try {
    out = await answer(JSON.parse(line));
  } catch (e) {
    out = { e: String(e?.message ?? e) };
  }
  process.stdout.write(JSON.stringify(out) + "\n");
}
