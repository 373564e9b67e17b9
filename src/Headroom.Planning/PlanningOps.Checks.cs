using Headroom.Core;

namespace Headroom.Planning;

// What the ops check, and the FLOPs of attention.
internal sealed partial class PlanningOps
{
    private void Weight(in LinearWeight w)
    {
        long n = (long)w.Out * w.In;
        int blocks = LinearWeight.Blocks(n, w.BlockSize);
        Use(w);
        if (w.Storage == WeightStorage.Gguf)
            Require(
                w.In % w.BlockType.Block().Values == 0
                    && w.Data.DType == DType.U8
                    && w.Data.Count == w.Out * w.BlockType.RowBytes(w.In),
                "GGUF data size"
            );
        else Require(w.Data.Count == n, "weight data size");
        if (w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double)
            Require(w.Absmax.Count == blocks, "absmax count");
        if (w.Storage == WeightStorage.NF4Double)
            Require(
                w.NestedAbsmax.Count == LinearWeight.Blocks(blocks, 256) && w.Offset.Count == 1, "nested absmax count");
        if (w.Storage == WeightStorage.Int8) Require(w.Absmax.Count == w.Out, "int8 absmax count");
        if (!w.Bias.IsNone) F32(w.Bias, w.Out);
    }

    // Operands that no check of shapes names; none is no operand.
    private void Use(Tensor x)
    {
        if (!x.IsNone) memory.Use(x);
    }

    private void Use(in LinearWeight w)
    {
        Use(w.Data);
        Use(w.Absmax);
        Use(w.NestedAbsmax);
        Use(w.Offset);
        Use(w.Bias);
    }

    private void Use(ReadOnlySpan<AdaptedLinear> group)
    {
        foreach (ref readonly var p in group)
        {
            Use(p.W);
            Use(p.A);
            Use(p.B);
            Use(p.Xa);
            Use(p.Y);
            Use(p.Dxa);
            Use(p.DA);
            Use(p.DB);
            Use(p.Residual);
        }
    }

    // Sequences are not known when planning; the longest single sequence is the bound for causal attention.
    private static double AttentionFlops(int tokens, Tensor offsets, in AttentionShape s, int perPair)
    {
        double length = (double)tokens / Math.Max(1, offsets.Rows - 1);
        double visible = s.SlidingWindow > 0 ? Math.Min(s.SlidingWindow, (length + 1) / 2) : (length + 1) / 2;
        return perPair * tokens * visible * s.NumHeads * s.HeadDim;
    }

    private void AttentionShapes(Tensor q, Tensor k, Tensor v, in AttentionShape s, Tensor o)
    {
        Require(s.NumHeads % s.NumKeyValueHeads == 0, "query heads are a multiple of key/value heads");
        Act(q, q.Rows, s.NumHeads * s.HeadDim);
        Act(k, q.Rows, s.NumKeyValueHeads * s.HeadDim);
        Like(q, k);
        Same(k, v);
        Strided(o, q.Rows, q.Columns);
        Like(q, o);
    }

    private void Tables(Tensor x, Tensor cos, Tensor sin, int headDim)
    {
        Require(x.Columns % headDim == 0, "rope heads");
        F32(cos, x.Rows, headDim / 2);
        F32(sin, x.Rows, headDim / 2);
    }

    private void LoraShapes(Tensor x, Tensor a, Tensor b, Tensor xa, Tensor y)
    {
        if (!a.IsNone)
        {
            F32(a, b.Columns, a.Columns);
            Strided(x, x.Rows, a.Columns);
        }
        F32(b, y.Columns, b.Columns);
        Act(xa, x.Rows, b.Columns);
        Act(y, x.Rows, y.Columns);
        Like(x, xa);
        Like(x, y);
    }

    private void HeadShapes(Tensor hidden, in LinearWeight head, Tensor logits)
    {
        Weight(head);
        Act(hidden, hidden.Rows, head.In);
        F32(logits, logits.Rows, head.Out);
    }

    private void Same(Tensor a, Tensor b)
    {
        Dense(a);
        Alike(a, b);
    }

    // The same in how rows lie too.
    private void Alike(Tensor a, Tensor b)
    {
        memory.Use(a);
        memory.Use(b);
        Require(
            a.DType == b.DType && a.Rows == b.Rows && a.Columns == b.Columns && a.Gap == b.Gap,
            $"{a.DType} {a.Shape} against {b.DType} {b.Shape}");
    }

    private void F32(Tensor x, int rows, int columns = 1)
    {
        memory.Use(x);
        Require(
            x.DType == DType.F32 && x.Rows == rows && x.Columns == columns && x.Gap == 0,
            $"{x.DType} {x.Shape} where F32 [{rows}, {columns}] is due");
    }

    // An activation: F32, or 16 bit on a device that computes so.
    private void Act(Tensor x, int rows, int columns)
    {
        memory.Use(x);
        Require(
            x.DType is DType.F32 or DType.BF16 or DType.F16 && x.Rows == rows && x.Columns == columns && x.Gap == 0,
            $"{x.DType} {x.Shape} where an activation [{rows}, {columns}] is due");
    }

    // As an activation, whose rows may lie apart by whole groups of 64 elements in 16 bit: a CPU never sees that.
    private void Strided(Tensor x, int rows, int columns)
    {
        Require(x.Gap == 0 || x.Gap > 0 && x.Gap % 64 == 0 && columns % 64 == 0 && x.DType is DType.BF16 or DType.F16,
            $"{x.DType} {x.Shape} with gaps of {x.Gap}");
        Act(x with { Gap = 0 }, rows, columns);
    }

    private static void Dense(Tensor x) => Require(x.Gap == 0, $"{x.DType} {x.Shape} with gaps of {x.Gap}");

    private static void Like(Tensor a, Tensor b) => Require(a.DType == b.DType, $"{a.DType} beside {b.DType}");

    private void Ints(Tensor x, int count)
    {
        memory.Use(x);
        Require(x.DType == DType.I32 && x.Count == count, $"{x.DType} {x.Shape} where I32 [{count}] is due");
    }

    private static void Require(bool condition, string what)
    {
        if (!condition) throw new InvalidOperationException("op contract: " + what);
    }
}
