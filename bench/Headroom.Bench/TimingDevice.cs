using System.Diagnostics;
using Headroom.Core;

namespace Headroom.Bench;

/// <summary>A device whose ops are timed one by one (wall time, or processor time of the process, which a busy machine disturbs less when one thread runs); the backward groups are taken apart into their members.</summary>
public sealed class TimingDevice(IDevice inner, bool processorTime = false) : IDevice
{
    public TimingOps Timing { get; } = new(inner.Ops, processorTime);
    public string Name => inner.Name;
    public IOps Ops => Timing;
    public long WorkspaceBytes => inner.WorkspaceBytes;
    public nint Reserve(long bytes) => inner.Reserve(bytes);
    public void Upload(ReadOnlySpan<byte> source, Tensor destination) => inner.Upload(source, destination);
    public void Download(Tensor source, Span<byte> destination) => inner.Download(source, destination);
    public void Dispose() => inner.Dispose();
}

/// <summary>Sums the seconds of every op under its name.</summary>
public sealed class TimingOps(IOps ops, bool processorTime) : IOps
{
    public sealed class Entry
    {
        public int Calls;
        public double Seconds;
    }

    public Dictionary<string, Entry> Entries { get; } = [];

    private void Add(string name, long start)
    {
        double seconds = new TimeSpan(Now - start).TotalSeconds;
        if (!Entries.TryGetValue(name, out var e)) Entries[name] = e = new Entry();
        e.Calls++;
        e.Seconds += seconds;
    }

    private long Now => processorTime ? Environment.CpuUsage.TotalTime.Ticks : Stopwatch.GetElapsedTime(0).Ticks;

    public void Zero(Tensor x) { long t = Now; ops.Zero(x); Add("zero", t); }
    public void Copy(Tensor src, Tensor dst) { long t = Now; ops.Copy(src, dst); Add("copy", t); }
    public void Add(Tensor x, Tensor y) { long t = Now; ops.Add(x, y); Add("add", t); }
    public void Sum(Tensor a, Tensor b, Tensor dst) { long t = Now; ops.Sum(a, b, dst); Add("sum", t); }
    public void ZeroAll(ReadOnlySpan<Tensor> tensors) { long t = Now; ops.ZeroAll(tensors); Add("zero", t); }
    public void GatherRows(Tensor x, Tensor rows, Tensor y) { long t = Now; ops.GatherRows(x, rows, y); Add("gather", t); }
    public void ScatterRows(Tensor y, Tensor rows, Tensor x) { long t = Now; ops.ScatterRows(y, rows, x); Add("scatter", t); }
    public void Embedding(Tensor ids, in LinearWeight table, Tensor y) { long t = Now; ops.Embedding(ids, table, y); Add("embedding", t); }
    public void EmbeddingBackward(Tensor ids, Tensor dy, Tensor dTable) { long t = Now; ops.EmbeddingBackward(ids, dy, dTable); Add("embedding_backward", t); }
    public void RmsNorm(Tensor x, Tensor weight, float eps, Tensor y, Tensor rstd) { long t = Now; ops.RmsNorm(x, weight, eps, y, rstd); Add("rms_norm", t); }
    public void AddRmsNorm(Tensor x, Tensor branch, Tensor weight, float eps, Tensor sum, Tensor y, Tensor rstd)
    { long t = Now; ops.AddRmsNorm(x, branch, weight, eps, sum, y, rstd); Add("add_rms_norm", t); }
    public void RmsNormBackward(Tensor x, Tensor weight, Tensor rstd, Tensor dy, Tensor dx, Tensor dWeight)
    { long t = Now; ops.RmsNormBackward(x, weight, rstd, dy, dx, dWeight); Add("rms_norm_backward", t); }
    public void Linear(Tensor x, in LinearWeight w, Tensor y) { long t = Now; ops.Linear(x, w, y); Add("linear", t); }
    public void LinearBackwardInput(Tensor dy, in LinearWeight w, bool accumulate, Tensor dx)
    { long t = Now; ops.LinearBackwardInput(dy, w, accumulate, dx); Add("linear_backward_input", t); }
    public void LinearBackwardWeight(Tensor x, Tensor dy, Tensor dW, Tensor dBias)
    { long t = Now; ops.LinearBackwardWeight(x, dy, dW, dBias); Add("linear_backward_weight", t); }
    public void LoraForward(Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor y)
    { long t = Now; ops.LoraForward(x, a, b, scaling, dropout, xa, y); Add("lora", t); }
    public void LoraInput(Tensor x, Tensor a, in Dropout dropout, Tensor xa) { long t = Now; ops.LoraInput(x, a, dropout, xa); Add("lora", t); }
    public void LoraBackward(Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor dy, Tensor dxa, Tensor dA, Tensor dB, Tensor dx)
    { long t = Now; ops.LoraBackward(x, a, b, scaling, dropout, xa, dy, dxa, dA, dB, dx); Add("lora_backward", t); }
    public void LinearGroup(Tensor x, ReadOnlySpan<AdaptedLinear> group) { long t = Now; ops.LinearGroup(x, group); Add("linear+lora", t); }
    public void RopeTable(Tensor positions, Tensor invFreq, float attentionFactor, Tensor cos, Tensor sin)
    { long t = Now; ops.RopeTable(positions, invFreq, attentionFactor, cos, sin); Add("rope_table", t); }
    public void Rope(Tensor x, Tensor cos, Tensor sin, int headDim, bool inverse) { long t = Now; ops.Rope(x, cos, sin, headDim, inverse); Add("rope", t); }
    public void Attention(Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor o, Tensor lse)
    { long t = Now; ops.Attention(q, k, v, offsets, shape, o, lse); Add("attention", t); }
    public void AttentionBackward(Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, Tensor dO, Tensor offsets, in AttentionShape shape, Tensor delta, Tensor dq, Tensor dk, Tensor dv)
    { long t = Now; ops.AttentionBackward(q, k, v, o, lse, dO, offsets, shape, delta, dq, dk, dv); Add("attention_backward", t); }
    public void AttentionMaterialized(Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor scores, Tensor o)
    { long t = Now; ops.AttentionMaterialized(q, k, v, offsets, shape, scores, o); Add("attention_materialized", t); }
    public void CachedAttention(Tensor q, Tensor kCache, Tensor vCache, int past, in AttentionShape shape, Tensor o)
    { long t = Now; ops.CachedAttention(q, kCache, vCache, past, shape, o); Add("cached_attention", t); }
    public void SwiGlu(Tensor gate, Tensor up, Tensor y) { long t = Now; ops.SwiGlu(gate, up, y); Add("swiglu", t); }
    public void SwiGluBackward(Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp, Tensor y = default)
    { long t = Now; ops.SwiGluBackward(gate, up, dy, dGate, dUp, y); Add("swiglu_backward", t); }
    public void LoraBackwardA(Tensor x, in Dropout dropout, Tensor dxa, Tensor dA) { long t = Now; ops.LoraBackwardA(x, dropout, dxa, dA); Add("lora_backward", t); }
    public void LinearCrossEntropy(Tensor hidden, in LinearWeight head, Tensor labels, float gradScale, Tensor logits, Tensor losses, Tensor dHidden, Tensor dHead)
    { long t = Now; ops.LinearCrossEntropy(hidden, head, labels, gradScale, logits, losses, dHidden, dHead); Add("linear_cross_entropy", t); }
    public void CandidateScores(Tensor hidden, in LinearWeight head, Tensor candidates, Tensor logits, Tensor scores, Tensor lse)
    { long t = Now; ops.CandidateScores(hidden, head, candidates, logits, scores, lse); Add("candidate_scores", t); }
    public double GlobalNorm(ReadOnlySpan<Tensor> tensors) { long t = Now; double n = ops.GlobalNorm(tensors); Add("global_norm", t); return n; }
    public void AdamW(ReadOnlySpan<ParameterSlot> slots, in AdamWStep step) { long t = Now; ops.AdamW(slots, step); Add("adamw", t); }
    public bool AllFinite(Tensor x) => ops.AllFinite(x);
    public void Quantize(Tensor src, in LinearWeight dst) => ops.Quantize(src, dst);
    public void Dequantize(in LinearWeight src, Tensor dst) => ops.Dequantize(src, dst);
}
