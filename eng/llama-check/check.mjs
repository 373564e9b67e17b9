// llama.cpp (through node-llama-cpp) against Headroom on the same GGUF files; see README.md.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const here = path.dirname(fileURLToPath(import.meta.url));
const tool = process.env.HEADROOM ?? path.join(here, "../../src/Headroom.Cli/bin/Release/net10.0/headroom.dll");
const prompts = ["Once upon a time", "The capital of France is", "Review: I liked this film.\nSentiment:", "This movie was", "The acting is wooden and the plot", "I would not"];
const count = 16, gap = 0.3;

const headroom = (...args) => execFileSync("dotnet", [tool, ...args], { encoding: "utf8", maxBuffer: 1 << 28 });
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: LlamaLogLevel.error });
let failed = false;

// Headroom's greedy ids, each against llama.cpp's best token after the same ids; what counts are the places where that token leads the second by a difference of logits.
async function greedy(file, label = path.basename(file)) {
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
  const context = await model.createContext({ contextSize: 256, threads: 1 });
  const sequence = context.getSequence();
  const addBos = model.fileInfo.metadata?.tokenizer?.ggml?.add_bos_token === true;
  let compared = 0, equal = 0, all = 0;
  for (const prompt of prompts) {
    const ours = JSON.parse(headroom("generate", file, "--prompt", prompt, "--max-new-tokens", String(count), "--temperature", "0", "--device", "cpu", "--json").trim().split("\n").at(-1)).ids;
    const ids = [...(addBos ? [model.tokens.bos] : []), ...model.tokenize(prompt, true)];
    await sequence.clearHistory();
    const fed = [...ids, ...ours.slice(0, -1)].map((id, i) => (i < ids.length - 1 ? id : [id, { generateNext: { logits: true } }]));
    const out = (await sequence.controlledEvaluate(fed)).slice(ids.length - 1);
    out.forEach(({ next }, i) => {
      const [[best, first], [, second]] = [...next.logits].sort((x, y) => y[1] - x[1]);
      all++;
      if (first - second < gap) return;
      compared++;
      if (best === ours[i]) equal++;
      else console.log(`  ${JSON.stringify(prompt)}: token ${i} is ${ours[i]} here and ${best} in llama.cpp, which leads by ${(first - second).toFixed(2)}`);
    });
  }
  console.log(`${label}: ${equal} of ${compared} tokens equal (of ${all}; the others lead by less than ${gap})`);
  failed ||= equal < compared || compared === 0;
  await model.dispose();
}

// A tokenizer of the bytes alone, for models that come without one.
function byteTokenizer(folder) {
  const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const vocab = {};
  let shifted = 256;
  for (let b = 0; b < 256; b++) vocab[String.fromCodePoint(printable(b) ? b : shifted++)] = b;
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  writeFileSync(path.join(folder, "tokenizer.json"), JSON.stringify({ version: "1.0", added_tokens: [], normalizer: null, pre_tokenizer: bytes, post_processor: null, decoder: bytes, model: { type: "BPE", vocab, merges: [] } }));
  return folder;
}

async function exported(model, types) {
  const folder = mkdtempSync(path.join(tmpdir(), "llama-check-"));
  try {
    const own = model.endsWith(".gguf") || existsSync(path.join(model, "tokenizer.json")) || existsSync(path.join(model, "tokenizer.model"));
    const adapter = !own && existsSync(path.join(model, "adapter")) ? ["--adapter", path.join(model, "adapter")] : [];
    for (const type of types) {
      const file = path.join(folder, `${path.basename(model)}-${type}.gguf`);
      headroom("export", model, "--type", type, "--out", file, ...adapter, ...(own ? [] : ["--tokenizer", byteTokenizer(folder)]));
      await greedy(file);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function vocabulary(tokenizer, input, output) {
  const folder = mkdtempSync(path.join(tmpdir(), "llama-check-"));
  try {
    const file = path.join(folder, "vocab.gguf");
    headroom("export", tokenizer, "--format", "vocab", "--out", file);
    const model = await llama.loadModel({ modelPath: file, vocabOnly: true, gpuLayers: 0 });
    const texts = readFileSync(input, "utf8").split("\n__ggml_vocab_test__\n");
    const due = readFileSync(output, "utf8").split("\n");
    let same = 0;
    texts.forEach((text, i) => {
      const got = model.tokenize(text, true).join(" "), want = due[i].trim().split(/\s+/).filter(Boolean).join(" ");
      if (got === want) same++;
      else console.log(`  ${JSON.stringify(text)}: ${got} in llama.cpp, ${want} here`);
    });
    console.log(`${tokenizer}: ids of ${same} of ${texts.length} texts equal`);
    failed ||= same < texts.length;
    await model.dispose();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const args = process.argv.slice(2);
if (args[0] === "--vocab") for (let i = 1; i + 2 < args.length; i += 3) await vocabulary(args[i], args[i + 1], args[i + 2]);
else if (args[0] === "--export") for (const model of args.slice(2)) await exported(model, args[1].split(","));
else for (const file of args) await greedy(file);
process.exit(failed ? 1 : 0);
