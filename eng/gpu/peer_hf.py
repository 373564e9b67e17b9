"""transformers + PEFT on the shapes of `Headroom.Bench step-cuda`, and torch's own matrix product, timed in the same run.

    python3 peer_hf.py CONFIG.json ROWSxLENGTH[:recompute] ... [--base bf16|nf4] [--steps N] [--out FILE.csv]

Random weights and tokens, every token labelled, LoRA r = 16 on all seven projections, dropout 0.1, AdamW over the adapters. --base nf4 needs
bitsandbytes; without it only the bf16 base can be timed, which is faster than an NF4 one (nothing to dequantize) and takes 13 GB where NF4 takes 3.9:
the CSV says which base a row had. PEFT is optional too: where it is absent the adapters are the few lines below, which do what its LoRA layer does.
"""
import argparse
import csv
import datetime
import json
import statistics
import time

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Lora(torch.nn.Module):
    """y = W x + (alpha / r) B A dropout(x), adapters in float32 computed in bf16 under autocast, as PEFT does."""

    def __init__(self, base, r=16, alpha=32, dropout=0.1):
        super().__init__()
        self.base, self.scale, self.dropout = base, alpha / r, torch.nn.Dropout(dropout)
        self.a = torch.nn.Parameter(torch.randn(r, base.in_features, device="cuda") * 0.01)
        self.b = torch.nn.Parameter(torch.zeros(base.out_features, r, device="cuda"))

    def forward(self, x):
        y = self.base(x)
        low = torch.nn.functional.linear(self.dropout(x), self.a.to(x.dtype))
        return y + torch.nn.functional.linear(low, self.b.to(x.dtype)) * self.scale


def build(path, base, recompute):
    with open(path) as f:
        values = json.load(f)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    extra = {}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, torch_dtype=torch.bfloat16, **extra)
    torch.set_default_dtype(torch.float32)
    for p in model.parameters():
        p.requires_grad_(False)
    if base == "nf4":
        import bitsandbytes as bnb
        for name, module in list(model.named_modules()):
            if name.split(".")[-1] in TARGETS:
                new = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")
                new.weight = bnb.nn.Params4bit(module.weight.data.cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4")
                owner = model.get_submodule(name.rsplit(".", 1)[0])
                setattr(owner, name.split(".")[-1], new.cuda())
    try:
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.1, target_modules=TARGETS, task_type="CAUSAL_LM"))
        adapters = "peft"
    except ImportError:
        for name, module in list(model.named_modules()):
            if name.split(".")[-1] in TARGETS:
                setattr(model.get_submodule(name.rsplit(".", 1)[0]), name.split(".")[-1], Lora(module))
        adapters = "own"
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if hasattr(model, "enable_input_require_grads"):
            model.enable_input_require_grads()
    model.train()
    return model, config, adapters


def step_time(model, config, rows, length, steps):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    ids = torch.randint(config.vocab_size, (rows, length), device="cuda")
    times = []
    for i in range(steps + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if i >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**20


def product_rate(m, n, k):
    x, w = torch.randn(m, k, device="cuda", dtype=torch.bfloat16), torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * 0.02
    for _ in range(3):
        x @ w.T
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a.record()
    for _ in range(10):
        x @ w.T
    b.record()
    torch.cuda.synchronize()
    return 2 * m * n * k * 10 / a.elapsed_time(b) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("shapes", nargs="+")
    parser.add_argument("--base", choices=["bf16", "nf4"], default="bf16")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", default="cuda-peer.csv")
    args = parser.parse_args()
    name = torch.cuda.get_device_name()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    rows_out = []

    def report(what, value, unit, mib=""):
        print(f"{what:46} {value:10.1f} {unit:9} {mib} MiB" if mib else f"{what:46} {value:10.1f} {unit}")
        rows_out.append([datetime.date.today(), name, versions, what, f"{value:.1f}", unit, mib])

    for m in (2048, 8192):
        report(f"torch product {m}x11008x4096", product_rate(m, 11008, 4096), "TFLOP/s")
    for shape in args.shapes:
        size, _, mode = shape.partition(":")
        rows, length = map(int, size.split("x"))
        torch.cuda.reset_peak_memory_stats()
        model, config, adapters = build(args.config, args.base, mode == "recompute")
        seconds, mib = step_time(model, config, rows, length, args.steps)
        report(f"{shape} base {args.base}, adapters {adapters}", rows * length / seconds, "tokens/s", f"{mib:.0f}")
        del model
        torch.cuda.empty_cache()
    with open(args.out, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["date", "device", "versions", "what", "value", "unit", "peak_allocated_mib"])
        writer.writerows(rows_out)


if __name__ == "__main__":
    main()
