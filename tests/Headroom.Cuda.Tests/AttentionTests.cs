using Headroom.Core;

namespace Headroom.Cuda.Tests;

/// <summary>Attention, forward and backward, over ragged packed sequences, grouped queries, sliding windows.</summary>
public class AttentionTests
{
    public static TheoryData<DType, int, bool> Cases
    {
        get
        {
            var data = new TheoryData<DType, int, bool>();
            foreach (int d in new[] { 16, 24, 64, 128 })
                foreach (var t in new[] { DType.F32, DType.BF16, DType.F16 })
                    foreach (bool fused in t == DType.F32 || d < 64 ? new[] { false } : [false, true]) data.Add(t, d, fused);
            return data;
        }
    }

    [Theory, MemberData(nameof(Cases))]
    public void ForwardAndBackward(DType t, int d, bool fused)
    {
        using var rig = new Rig();
        ((CudaOps)rig.Gpu).FusedKernels = fused;
        double tol = Rig.Tolerance(t);
        foreach (var (heads, kv, window, lengths) in new[] { (4, 4, 0, new[] { 64, 1, 130, 63, 65 }), (6, 2, 0, [200]), (4, 1, 24, [90, 7, 150]), (2, 2, 100, [400]) })
        {
            var s = new AttentionShape(heads, kv, d, window);
            int rows = lengths.Sum(), at = 0;
            Pair offsets = rig.Ints([0, .. lengths.Select(l => at += l)]);
            Pair q = rig.Normal(t, rows, heads * d), k = rig.Normal(t, rows, kv * d), v = rig.Normal(t, rows, kv * d), o = rig.Empty(t, rows, heads * d), lse = rig.Empty(DType.F32, rows, heads);
            rig.Cpu.Attention(q.Cpu, k.Cpu, v.Cpu, offsets.Cpu, s, o.Cpu, lse.Cpu); rig.Gpu.Attention(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, o.Gpu, lse.Gpu);
            string what = $"heads {heads}/{kv} d {d} window {window} rows {rows}";
            rig.Close(o, tol, "o " + what); rig.Close(lse, tol, "lse " + what);
            Pair g = rig.Normal(t, rows, heads * d), delta = rig.Empty(DType.F32, rows, heads), dq = rig.Empty(t, rows, heads * d), dk = rig.Empty(t, rows, kv * d), dv = rig.Empty(t, rows, kv * d);
            rig.Push(o); // equal inputs on both sides
            rig.Push(lse);
            rig.Cpu.AttentionBackward(q.Cpu, k.Cpu, v.Cpu, o.Cpu, lse.Cpu, g.Cpu, offsets.Cpu, s, delta.Cpu, dq.Cpu, dk.Cpu, dv.Cpu);
            rig.Gpu.AttentionBackward(q.Gpu, k.Gpu, v.Gpu, o.Gpu, lse.Gpu, g.Gpu, offsets.Gpu, s, delta.Gpu, dq.Gpu, dk.Gpu, dv.Gpu);
            rig.Close(dq, tol, "dq " + what); rig.Close(dk, tol, "dk " + what); rig.Close(dv, tol, "dv " + what);
            if (lengths.Length > 1) continue;
            Pair scores = rig.Empty(DType.F32, rows, rows), plain = rig.Empty(t, rows, heads * d);
            rig.Cpu.AttentionMaterialized(q.Cpu, k.Cpu, v.Cpu, offsets.Cpu, s, scores.Cpu, plain.Cpu); rig.Gpu.AttentionMaterialized(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, scores.Gpu, plain.Gpu);
            rig.Close(plain, tol, "plain " + what);
            int n = 5, past = rows - n;
            Pair c = rig.Empty(t, n, heads * d);
            rig.Cpu.CachedAttention(q.Cpu.Slice(past, n), k.Cpu, v.Cpu, past, s, c.Cpu); rig.Gpu.CachedAttention(q.Gpu.Slice(past, n), k.Gpu, v.Gpu, past, s, c.Gpu);
            rig.Close(c, tol, "cached " + what);
        }
    }
}
