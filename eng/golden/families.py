"""Ground truth of a tiny model of any family, by transformers and PEFT in float32 on a CPU.

    python eng/golden/families.py make CONFIG.json FOLDER [--seed N]
    python eng/golden/families.py check FOLDER...

`make` takes a configuration, gives it random weights and computes its figures; `check` computes them again from the
weights and the adapter of folders that are there. `make` writes what FamilyGoldenTests reads below the folder that
HEADROOM_GOLDEN names, as families/<name>:
config.json, model.safetensors, adapter/ (LoRA, r 4, alpha 8, no dropout, all linears of attention and MLP),
golden.safetensors (base.*, lora.*, greedy.*) and lora-6-steps.json. `check` ends with an error where a figure differs
by more than the tolerances of the tests. Made and checked with torch 2.11, transformers 5.17, PEFT 0.21.
"""
import argparse
import json
import pathlib
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, get_cosine_schedule_with_warmup

STEPS, WARMUP, LR, CLIP = 6, 2, 1e-2, 0.3
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj"]


def batch_of(config, seed):
    """Three rows of 48, 37 and 21 tokens, padded on the right; the first eight tokens of a row are not labelled."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, config.vocab_size, (3, 48), generator=random)
    mask = torch.zeros_like(ids)
    for row, length in enumerate((48, 37, 21)):
        mask[row, :length] = 1
    ids = ids * mask + (config.pad_token_id or 0) * (1 - mask)
    labels = torch.where(mask == 1, ids, -100)
    labels[:, :8] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def open_base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def figures(folder, batch, prompt):
    """Everything that golden.safetensors and lora-6-steps.json hold, from the folder's weights."""
    model = open_base(folder).eval()
    with torch.no_grad():
        out = model(**batch)
    found = {**batch, "base.logits": out.logits, "base.loss": out.loss}
    ids = prompt[None]
    for _ in range(12):  # whole sequences, without a cache: the plainest form
        with torch.no_grad():
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    found |= {"greedy.prompt": prompt, "greedy.tokens": ids[0, len(prompt):]}

    model = PeftModel.from_pretrained(open_base(folder), folder / "adapter", is_trainable=True).train()
    adapter = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(adapter.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS)
    steps = []
    for step in range(STEPS):
        out = model(**batch)
        optimizer.zero_grad()
        out.loss.backward()
        if step == 0:
            found |= {"lora.logits": out.logits.detach(), "lora.loss": out.loss.detach()}
            found |= {f"lora.grad.{n}": p.grad.clone() for n, p in adapter.items()}
        norm = torch.nn.utils.clip_grad_norm_(adapter.values(), CLIP)
        steps.append({"step": step, "loss": out.loss.item(), "grad_norm": norm.item(), "lr": schedule.get_last_lr()[0]})
        optimizer.step()
        schedule.step()
    found |= {f"lora.after{STEPS}.{n}": p.detach().clone() for n, p in adapter.items()}
    return found, steps


def as_stored(value):
    value = value.detach().reshape(-1) if value.dim() == 0 else value.detach()
    return (value.to(torch.int32) if value.dtype == torch.int64 else value).contiguous()


def make(config_path, folder, seed):
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(config_path)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # norms away from one and weights large enough that a wrong rule shows
        for name, p in model.named_parameters():
            is_norm = p.dim() == 1 and "bias" not in name
            p.copy_(1 + 0.1 * torch.randn_like(p) if is_norm else 0.08 * torch.randn_like(p))
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    linears = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    peft = get_peft_model(model, LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=sorted(linears & set(TARGETS)), task_type="CAUSAL_LM"))
    with torch.no_grad():  # B away from zero, so that A has a gradient at step 0
        for name, p in peft.named_parameters():
            if "lora_B" in name:
                p.copy_(0.05 * torch.randn_like(p))
    peft.save_pretrained(folder / "adapter")
    prompt = torch.randint(3, config.vocab_size, (8,))
    found, steps = figures(folder, batch_of(config, seed), prompt)
    save_file({k: as_stored(v) for k, v in found.items()}, folder / "golden.safetensors")
    (folder / "lora-6-steps.json").write_text(json.dumps(steps, indent=1))


def check(folder):
    """Prints the largest difference of each kind of figure, measured as the tests do; false where one is too large."""
    known = load_file(folder / "golden.safetensors")
    batch = {k: known[k].long() for k in ("input_ids", "attention_mask", "labels")}
    found, steps = figures(folder, batch, known.get("greedy.prompt", batch["input_ids"][0, :8]).long())
    worst = {}

    def note(kind, difference, limit):
        before, _ = worst.get(kind, (0.0, limit))
        worst[kind] = (max(before, float(difference)), limit)

    mask = batch["attention_mask"].bool()
    for name, there in known.items():
        if name not in found:  # merged weights and QLoRA of the first six models
            continue
        here = as_stored(found[name])
        if name.endswith(".logits"):
            note("logits", (here - there)[mask].abs().max(), 1e-4)
        elif name.endswith(".loss"):
            note("loss", ((here - there) / there).abs().max(), 1e-5)
        elif ".grad." in name:
            note("gradients", (here - there).abs().max() / there.abs().max().clamp_min(1e-30), 1e-4)
        elif ".after6." in name:
            note("weights after six steps", (here - there).abs().max(), 1e-4)
        elif name == "greedy.tokens":
            note("greedy tokens", (here != there).sum(), 0)
    for here, there in zip(steps, json.loads((folder / "lora-6-steps.json").read_text()), strict=True):
        note("losses of steps", abs(here["loss"] - there["loss"]) / there["loss"], 1e-5)
        note("learning rates", abs(here["lr"] - there["lr"]), 1e-12)
    bad = [kind for kind, (difference, limit) in worst.items() if difference > limit]
    print(folder.name, ", ".join(f"{kind} {difference:.1e}" for kind, (difference, _) in worst.items()),
          "DIFFERENT: " + ", ".join(bad) if bad else "")
    return not bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("make")
    verb.add_argument("config", type=pathlib.Path)
    verb.add_argument("folder", type=pathlib.Path)
    verb.add_argument("--seed", type=int, default=1)
    verb = verbs.add_parser("check")
    verb.add_argument("folders", type=pathlib.Path, nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(4)
    if args.verb == "make":
        make(args.config, args.folder, args.seed)
        return 0
    return 0 if all([check(f) for f in args.folders]) else 1


if __name__ == "__main__":
    sys.exit(main())
