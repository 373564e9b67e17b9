// llama.cpp (through node-llama-cpp) against Headroom on the same GGUF files; see README.md.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const here = path.dirname(fileURLToPath(import.meta.url));
const tool = process.env.HEADROOM ?? path.join(here, "../../src/Headroom.Cli/bin/Release/net10.0/headroom.dll");
const prompts = ["Once upon a time", "The capital of France is", "Review: I liked this film.\nSentiment:"];
const count = 16, gap = 0.3;

const headroom = (...args) => execFileSync("dotnet", [tool, ...args], { encoding: "utf8", maxBuffer: 1 << 28 });
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: LlamaLogLevel.error });
let failed = false;

// Headroom's greedy ids, and those of llama.cpp with the lead of the best token over the second (a difference of logits).
async function greedy(file) {
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
  const context = await model.createContext({ contextSize: 256, threads: 1 });
  const sequence = context.getSequence();
  const addBos = model.tokenizer !== undefined && model.fileInfo.metadata?.tokenizer?.ggml?.add_bos_token === true;
  let compared = 0, equal = 0, stopped = 0;
  for (const prompt of prompts) {
    const ours = JSON.parse(headroom("generate", file, "--prompt", prompt, "--max-new-tokens", String(count), "--temperature", "0", "--device", "cpu", "--json").trim().split("\n").at(-1)).ids;
    const ids = [...(addBos ? [model.tokens.bos] : []), ...model.tokenize(prompt, true)];
    await sequence.clearHistory();
    const theirs = [], leads = [];
    for await (const step of sequence.evaluateWithMetadata(ids, { probabilities: true }, { temperature: 0, yieldEogToken: true })) {
      const [first, second] = [...step.probabilities.values()].sort((a, b) => b - a);
      theirs.push(step.token);
      leads.push(Math.log(first / second));
      if (theirs.length === count || model.isEogToken(step.token)) break;
    }
    let n = 0;
    while (n < theirs.length && leads[n] >= gap && !model.isEogToken(theirs[n])) n++;
    if (n < theirs.length) stopped++;
    let same = 0;
    while (same < n && ours[same] === theirs[same]) same++;
    console.log(`  ${JSON.stringify(prompt)}: ${same} of ${n} equal${n < theirs.length ? `, then a lead of ${leads[n].toFixed(2)} or the end` : ""}`);
    compared += n;
    equal += same;
    if (same < n) console.log(`  ${JSON.stringify(prompt)}: token ${same} is ${ours[same]} here and ${theirs[same]} in llama.cpp (lead ${leads[same].toFixed(2)})`);
  }
  console.log(`${path.basename(file)}: ${equal} of ${compared} tokens equal (${stopped} of ${prompts.length} prompts cut at a lead below ${gap} or the end of the text)`);
  failed ||= equal < compared;
  await model.dispose();
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
else for (const file of args) await greedy(file);
process.exit(failed ? 1 : 0);
