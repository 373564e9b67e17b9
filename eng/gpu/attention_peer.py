#!/usr/bin/env python3
"""Attention kernels of Headroom against PyTorch's flash backend: correctness and speed on one card, in one run.

Compiles src/Headroom.Cuda/Kernels through NVRTC as Headroom.Cuda.KernelCompiler does, compares o, lse, dq, dk, dv with float32 references in
PyTorch (ragged packed sequences, grouped queries, sliding windows, poisoned neighbours; two runs must give equal bits), then times both sides
at 32 heads of 128, bf16: median of events, microseconds and TFLOP/s (causal: forward 2 S S D H a sequence, backward 2.5 times that).

  python3 eng/gpu/attention_peer.py [--csv bench/results/cuda-attention.csv] [--skip-check] [--variant NAME=-DX=1,-DY=2 ...]

A variant is the Hopper kernels with other defines, timed beside the rest. Needs PyTorch with CUDA and an NVRTC library; exit code 1 when a check fails.
"""
import argparse, ctypes as C, datetime, glob, math, os, sys
import torch

KERNELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src", "Headroom.Cuda", "Kernels")
BF16, F16 = 1, 2                                     # ACT of common.cuh
ROWS, KEYS, SLOTS, THREADS, BOUNDARY = 128, 128, 4, 384, 1024  # as hopper.cuh
SHAPES = [(4, 512), (2, 2048), (1, 4096)]            # batch, length
CASES = [                                            # lengths, heads, key/value heads, window, rows past the last sequence
    ([128], 1, 1, 0, 0), ([256, 512], 4, 4, 0, 0), ([64, 1, 130, 63, 65], 4, 4, 0, 40), ([200], 6, 2, 0, 24), ([90, 7, 150, 333], 4, 1, 24, 3),
    ([400, 700], 12, 2, 100, 64), ([1000, 129], 9, 9, 300, 0), ([2048], 4, 2, 0, 0), ([37] * 40, 9, 3, 0, 5)]
TOLERANCE = {BF16: 6e-3, F16: 8e-4}

torch.zeros(1, device="cuda")                        # the primary context; the driver calls below use it
driver = C.CDLL("libcuda.so.1")


def check(status, what):
    if status: sys.exit(f"{what}: status {status}")


def nvrtc():
    site = os.path.dirname(os.path.dirname(torch.__file__))
    for pattern in ("/usr/local/cuda/lib64/libnvrtc.so*", f"{site}/nvidia/*/lib/libnvrtc.so*"):
        found = [p for p in sorted(glob.glob(pattern)) if "builtins" not in p]
        if found: return C.CDLL(found[-1])
    sys.exit("no NVRTC library found")


def source(name):
    lines = open(os.path.join(KERNELS, name)).read().splitlines()
    return "\n".join(source(l.split('"')[1]) if l.startswith('#include "') else l for l in lines) + "\n"


class Kernels:
    """The functions of one source file for a head size and activation type."""

    def __init__(self, file, head, act, defines=()):
        lib, program = nvrtc(), C.c_void_p()
        major, minor = torch.cuda.get_device_capability()
        arch = f"sm_{major}{minor}" + ("a" if (major, minor) == (9, 0) else "")
        options = [f"--gpu-architecture={arch}", "--std=c++17", f"-DACT={act}", f"-DHEAD={head}", f"-DRANK={head}", "--ptxas-options=-v", *defines]
        check(lib.nvrtcCreateProgram(C.byref(program), (source("common.cuh") + source(file)).encode(), file.encode(), 0, None, None), "nvrtcCreateProgram")
        status = lib.nvrtcCompileProgram(program, len(options), (C.c_char_p * len(options))(*[o.encode() for o in options]))
        size = C.c_size_t()
        lib.nvrtcGetProgramLogSize(program, C.byref(size))
        log = C.create_string_buffer(size.value)
        lib.nvrtcGetProgramLog(program, log)
        log = log.value.decode(errors="replace")
        if status: sys.exit(f"{file}: {log}")
        for line in log.splitlines():
            if "Potential Performance Loss" in line: print("  ", line.strip())
        lib.nvrtcGetCUBINSize(program, C.byref(size))
        cubin = C.create_string_buffer(size.value)
        lib.nvrtcGetCUBIN(program, cubin)
        self.module, self.functions, self.label = C.c_void_p(), {}, f"{file} head {head} act {act} {' '.join(defines)}"
        check(driver.cuModuleLoadData(C.byref(self.module), cubin), "cuModuleLoadData")

    def launcher(self, name, grid, block, shared, *arguments):
        if name not in self.functions:
            f, value = C.c_void_p(), C.c_int()
            check(driver.cuModuleGetFunction(C.byref(f), self.module, name.encode()), name)
            if shared > 48 << 10: check(driver.cuFuncSetAttribute(f, 8, shared), "shared memory of " + name)
            facts = []
            for attribute in (4, 3):
                driver.cuFuncGetAttribute(C.byref(value), attribute, f)
                facts.append(value.value)
            print(f"  {name} ({self.label}): {facts[0]} registers, {facts[1]} bytes spilled, {shared} shared")
            self.functions[name] = f
        f, values = self.functions[name], []
        for a in arguments:
            values.append(a if isinstance(a, (C.Array, C.c_int64)) else C.c_uint64(a.data_ptr()) if torch.is_tensor(a) else C.c_float(a) if isinstance(a, float) else C.c_int(a))
        pointers = (C.c_void_p * len(values))(*[aligned(v) if isinstance(v, C.Array) else C.addressof(v) for v in values])
        stream = C.c_void_p(torch.cuda.current_stream().cuda_stream)

        def launch(hold=(values, arguments)):
            check(driver.cuLaunchKernel(f, grid[0], grid[1], 1, block, 1, 1, shared, stream, pointers, None), name)
        return launch


def aligned(buffer):
    return (C.addressof(buffer) + 63) & ~63


def tensor_map(t, act):
    buffer, u64, u32 = C.create_string_buffer(128 + 64), C.c_uint64, C.c_uint32
    check(driver.cuTensorMapEncodeTiled(C.c_void_p(aligned(buffer)), 9 if act == BF16 else 6, 2, C.c_void_p(t.data_ptr()), (u64 * 2)(t.shape[1], t.shape[0]),
          (u64 * 1)(t.shape[1] * 2), (u32 * 2)(64, 64), (u32 * 2)(1, 1), 0, 3, 2, 0), "cuTensorMapEncodeTiled")
    return buffer


class Case:
    def __init__(self, lengths, heads, kv, window, head, act, past=0):
        self.lengths, self.heads, self.kv, self.window, self.head, self.act = lengths, heads, kv, window, head, act
        self.type, self.rows, self.scale = torch.bfloat16 if act == BF16 else torch.float16, sum(lengths), 1 / math.sqrt(head)
        self.starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        self.offsets = torch.tensor(self.starts, dtype=torch.int32, device="cuda")
        self.q, self.k, self.v, self.g = (torch.randn(self.rows + past, h * head, device="cuda").to(self.type) for h in (heads, kv, kv, heads))
        for t in (self.q, self.k, self.v, self.g): t[self.rows:] = float("nan")
        self.o, self.dq, self.dk, self.dv = (torch.empty_like(t) for t in (self.q, self.q, self.k, self.v))
        self.lse, self.delta = (torch.empty(self.rows + past, heads, device="cuda") for _ in range(2))

    def results(self): return [t[:self.rows] for t in (self.o, self.lse, self.dq, self.dk, self.dv)]

    def reference(self):
        parts = []
        for first, n in zip(self.starts, self.lengths):
            heads = lambda t, h: t[first:first + n].float().view(n, h, self.head).transpose(0, 1).detach().requires_grad_()
            q, k, v = heads(self.q, self.heads), heads(self.k, self.kv), heads(self.v, self.kv)
            group, i = self.heads // self.kv, torch.arange(n, device="cuda")
            seen = i[None, :] <= i[:, None]
            if self.window > 0: seen &= i[None, :] > i[:, None] - self.window
            x = (q @ k.repeat_interleave(group, 0).transpose(1, 2) * self.scale).masked_fill(~seen, float("-inf"))
            o = torch.softmax(x, -1) @ v.repeat_interleave(group, 0)
            o.backward(heads(self.g, self.heads).detach())
            flat = lambda t: t.detach().transpose(0, 1).reshape(n, -1)
            parts.append((flat(o), torch.logsumexp(x, -1).detach().t(), flat(q.grad), flat(k.grad), flat(v.grad)))
        return [torch.cat(p) for p in zip(*parts)]

    def tail(self, tiles=None):
        return [self.offsets, len(self.lengths), *([] if tiles is None else [tiles]), self.heads, self.kv, self.window, self.scale]

    def apart(self): return C.c_int64(self.heads * self.head)  # rows of o and dO

    def delta_launch(self, rows):
        count, lanes = self.rows * self.heads, self.head // 8
        return rows.launcher("attention_delta", ((count * lanes + 255) // 256, 1), 256, 0, self.o, self.g, self.apart(), self.delta, count, self.heads, self.head, lanes)

    def hopper(self, forward, backward, rows):
        tiles = self.rows // ROWS + len(self.lengths)
        shared = lambda staying: (staying + SLOTS * KEYS) * self.head * 2 + BOUNDARY
        q, k, v, g = (tensor_map(t, self.act) for t in (self.q, self.k, self.v, self.g))
        return [forward.launcher("flash_hopper_forward", (tiles * self.heads, 1), THREADS, shared(ROWS), q, k, v, *self.tail(tiles), self.o, self.apart(), self.lse)], \
               [self.delta_launch(rows), backward.launcher("flash_hopper_backward", (tiles * (self.heads + self.kv), 1), THREADS, shared(2 * ROWS),
                   q, k, v, g, self.lse, self.delta, *self.tail(tiles), self.dq, self.dk, self.dv, C.c_int64(0), C.c_int64(0))]  # no rotation

    def general(self, flash, rows):
        tiles, shared = self.rows // 64 + len(self.lengths), 4 * 64 * self.head * 2
        gradient = [self.q, self.k, self.v, self.lse, self.g, self.apart(), self.delta, *self.tail()]
        return [flash.launcher("flash_forward", (tiles, self.heads), 128, shared, self.q, self.k, self.v, *self.tail(), self.o, self.apart(), self.lse)], \
               [self.delta_launch(rows), flash.launcher("flash_dq", (tiles, self.heads), 128, shared, *gradient, self.dq),
                flash.launcher("flash_dkv", (tiles, self.kv), 128, shared + 512, *gradient, self.dk, self.dv)]


def build(head, act, defines=()):
    """Per name: a function from a case to its forward and backward launches."""
    rows, flash = Kernels("attention_rows.cu", head, act), Kernels("flash.cu", head, act)
    made = {"tensor cores": lambda c: c.general(flash, rows)}
    if torch.cuda.get_device_capability() == (9, 0):
        for name, d in {"hopper": [], **dict(defines)}.items():
            pair = Kernels("flash_hopper.cu", head, act, d), Kernels("flash_hopper_backward.cu", head, act, d)
            made[name] = lambda c, pair=pair: c.hopper(*pair, rows)
    return made


def run(launches):
    for l in launches: l()


def compare(made, head, act):
    bad = 0
    for lengths, heads, kv, window, past in CASES:
        c = Case(lengths, heads, kv, window, head, act, past)
        expected = c.reference()
        for name, make in made.items():
            passes = []
            for _ in range(2):
                for t in (c.o, c.lse, c.delta, c.dq, c.dk, c.dv): t.fill_(float("nan"))
                for launches in make(c): run(launches)
                torch.cuda.synchronize()
                passes.append([t.clone() for t in c.results()])
            errors = [((a.float() - b).norm() / b.norm()).item() for a, b in zip(passes[0], expected)]
            good = all(torch.equal(a, b) for a, b in zip(*passes)) and all(e < TOLERANCE[act] for e in errors)
            bad += not good
            if not good: print(f"WRONG {name} head {head} act {act} {lengths} heads {heads}/{kv} window {window}: {errors}")
    print(f"head {head}, {'bf16' if act == BF16 else 'fp16'}: {len(CASES)} cases, {bad} wrong")
    return bad


def timed(action, inner=10, outer=9):
    for _ in range(3): action()
    times = []
    for _ in range(outer):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for _ in range(inner): action()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) / inner * 1e3)
    return sorted(times)[outer // 2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--csv")
    parser.add_argument("--skip-check", action="store_true")
    parser.add_argument("--variant", action="append", default=[])
    args = parser.parse_args()
    variants = [(v.split("=", 1)[0], v.split("=", 1)[1].split(",")) for v in args.variant]
    bad = 0
    if not args.skip_check:
        torch.backends.cuda.matmul.allow_tf32 = False
        bad = sum(compare(build(head, act, variants), head, act) for head in (64, 128) for act in (BF16, F16))
    device, day, made = torch.cuda.get_device_name(), datetime.date.today(), build(128, BF16, variants)
    lines = ["date,device,batch,length,kernels,pass,microseconds,TFLOP/s,ratio to PyTorch"]
    print(f"{device}, PyTorch {torch.__version__}, 32 heads of 128, bf16, causal")
    for batch, length in SHAPES:
        c, flops = Case([length] * batch, 32, 32, 0, 128, BF16), 2.0 * length * length * 128 * 32 * batch
        q, k, v, g = (t.view(batch, length, 32, 128).transpose(1, 2) for t in (c.q, c.k, c.v, c.g))
        aten = torch.ops.aten
        ahead = lambda: aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, False, scale=c.scale)
        r = ahead()
        back = lambda: aten._scaled_dot_product_flash_attention_backward(g, q, k, v, r[0], r[1], r[2], r[3], r[4], r[5], 0.0, True, r[6], r[7], scale=c.scale)
        actions = {"PyTorch flash": (ahead, back)}
        for name, make in made.items():
            f, b = make(c)
            actions[name] = (lambda f=f: run(f), lambda b=b: run(b))
        rounds = [{n: (timed(a[0]), timed(a[1])) for n, a in actions.items()} for _ in range(2)]  # interleaved; the better of two medians
        best = {n: [min(x[n][i] for x in rounds) for i in (0, 1)] for n in actions}
        for name, times in best.items():
            for i, (which, work) in enumerate((("forward", flops), ("backward", 2.5 * flops))):
                ratio = best["PyTorch flash"][i] / times[i]
                print(f"{batch} x {length:<5} {name:14} {which:9} {times[i]:8.1f} us {work / times[i] / 1e6:6.0f} TFLOP/s  x {ratio:.2f}")
                lines.append(f"{day},{device},{batch},{length},{name},{which},{times[i]:.1f},{work / times[i] / 1e6:.0f},{ratio:.2f}")
    if args.csv: open(args.csv, "w").write("\n".join(lines) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
