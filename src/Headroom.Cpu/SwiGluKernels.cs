using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>SwiGLU: silu(gate) * up, and its gradient.</summary>
internal static unsafe class SwiGluKernels
{
    private const int Chunk = 8192;

    private struct Context
    {
        public float* Gate, Up, Dy, Y, DUp, Again;
        public long Count;
    }

    public static void Forward(WorkerPool pool, Tensor gate, Tensor up, Tensor y)
    {
        var c = new Context { Gate = gate.F, Up = up.F, Y = y.F, Count = gate.Count };
        pool.Run(&ForwardPart, &c, (int)((c.Count + Chunk - 1) / Chunk));
    }

    private static void ForwardPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        long from = (long)part * Chunk;
        Row(c->Gate + from, c->Up + from, c->Y + from, (int)Math.Min(Chunk, c->Count - from));
    }

    /// <summary>y = gate * sigmoid(gate) * up; y may be gate or up.</summary>
    public static void Row(float* gate, float* up, float* y, int n)
    {
        var one = Vector256.Create(1f);
        int i = 0;
        for (; i <= n - 8; i += 8)
        {
            var g = Vector256.Load(gate + i);
            Vector256.Store(g / (one + VectorMath.Exp(-g)) * Vector256.Load(up + i), y + i);
        }
        RowScalar(gate + i, up + i, y + i, n - i);
    }

    /// <summary>Scalar twin of <see cref="Row"/>.</summary>
    public static void RowScalar(float* gate, float* up, float* y, int n)
    {
        for (int i = 0; i < n; i++) y[i] = gate[i] / (1f + VectorMath.Exp(-gate[i])) * up[i];
    }

    public static void Backward(
        WorkerPool pool, Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp, Tensor y = default)
    {
        var c = new Context
        {
            Gate = gate.F,
            Up = up.F,
            Dy = dy.F,
            Y = dGate.F,
            DUp = dUp.F,
            Again = y.F,
            Count = gate.Count,
        };
        pool.Run(&BackwardPart, &c, (int)((c.Count + Chunk - 1) / Chunk));
    }

    private static void BackwardPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        long from = (long)part * Chunk;
        RowBackward(
            c->Gate + from,
            c->Up + from,
            c->Dy + from,
            c->Y + from,
            c->DUp + from,
            (int)Math.Min(Chunk, c->Count - from),
            c->Again == null ? null : c->Again + from);
    }

    /// <summary>
    /// s = sigmoid(gate): dUp = dy * gate * s, dGate = dy * up * s * (1 + gate * (1 - s)), and the forward's y again
    /// unless null. Outputs may be inputs.
    /// </summary>
    public static void RowBackward(float* gate, float* up, float* dy, float* dGate, float* dUp, int n, float* y = null)
    {
        var one = Vector256.Create(1f);
        int i = 0;
        for (; i <= n - 8; i += 8)
        {
            Vector256<float> g = Vector256.Load(gate + i), u = Vector256.Load(up + i), d = Vector256.Load(dy + i);
            var e = one + VectorMath.Exp(-g);
            var s = one / e;
            if (y != null) Vector256.Store(g / e * u, y + i); // the forward's expression, for its very bits
            Vector256.Store(d * u * s * Vector256.FusedMultiplyAdd(g, one - s, one), dGate + i);
            Vector256.Store(d * (g * s), dUp + i);
        }
        RowBackwardScalar(gate + i, up + i, dy + i, dGate + i, dUp + i, n - i, y == null ? null : y + i);
    }

    /// <summary>Scalar twin of <see cref="RowBackward"/>.</summary>
    public static void RowBackwardScalar(
        float* gate, float* up, float* dy, float* dGate, float* dUp, int n, float* y = null)
    {
        for (int i = 0; i < n; i++)
        {
            float g = gate[i], u = up[i], d = dy[i], e = 1f + VectorMath.Exp(-g), s = 1f / e;
            if (y != null) y[i] = g / e * u;
            dGate[i] = d * u * s * MathF.FusedMultiplyAdd(g, 1f - s, 1f);
            dUp[i] = d * (g * s);
        }
    }
}
