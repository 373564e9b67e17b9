using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>Rotary position embedding in the half-split layout of transformers.</summary>
internal static unsafe class RopeKernels
{
    private const int Rows = 16;

    private struct Context
    {
        public int* Positions;
        public float* InvFreq, Cos, Sin, X;
        public float Factor;
        public int Count, Heads, Half;
        public bool Inverse;
    }

    public static void Table(WorkerPool pool, Tensor positions, Tensor invFreq, float factor, Tensor cos, Tensor sin)
    {
        var c = new Context
        {
            Positions = positions.I,
            InvFreq = invFreq.F,
            Cos = cos.F,
            Sin = sin.F,
            Factor = factor,
            Count = (int)positions.Count,
            Half = (int)invFreq.Count,
        };
        pool.Run(&TablePart, &c, (c.Count + Rows - 1) / Rows);
    }

    private static void TablePart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int end = Math.Min(c->Count, (part + 1) * Rows);
        for (int t = part * Rows; t < end; t++)
            for (int i = 0; i < c->Half; i++)
            {
                // The angle is rounded to float32, as in the reference.
                var (s, co) = Math.SinCos((float)(c->Positions[t] * c->InvFreq[i]));
                c->Cos[(long)t * c->Half + i] = (float)co * c->Factor;
                c->Sin[(long)t * c->Half + i] = (float)s * c->Factor;
            }
    }

    public static void Rotate(WorkerPool pool, Tensor x, Tensor cos, Tensor sin, int headDim, bool inverse)
    {
        var c = new Context
        {
            X = x.F,
            Cos = cos.F,
            Sin = sin.F,
            Count = x.Rows,
            Heads = x.Columns / headDim,
            Half = headDim / 2,
            Inverse = inverse,
        };
        pool.Run(&RotatePart, &c, (c.Count + Rows - 1) / Rows);
    }

    private static void RotatePart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int end = Math.Min(c->Count, (part + 1) * Rows), half = c->Half;
        for (int t = part * Rows; t < end; t++)
            for (int h = 0; h < c->Heads; h++)
                Head(
                    c->X + ((long)t * c->Heads + h) * 2 * half, c->Cos + (long)t * half, c->Sin + (long)t * half, half,
                    c->Inverse);
    }

    /// <summary>(a, b) becomes (a cos - b sin, b cos + a sin); the inverse negates sin.</summary>
    public static void Head(float* x, float* cos, float* sin, int half, bool inverse)
    {
        var sign = Vector256.Create(inverse ? -0f : 0f);
        int i = 0;
        for (; i <= half - 8; i += 8)
        {
            Vector256<float> a = Vector256.Load(x + i),
                b = Vector256.Load(x + half + i),
                c = Vector256.Load(cos + i),
                s = Vector256.Load(sin + i) ^ sign;
            Vector256.Store(a * c - b * s, x + i);
            Vector256.Store(b * c + a * s, x + half + i);
        }
        HeadScalar(x, cos, sin, half, inverse, i);
    }

    /// <summary>Scalar twin of <see cref="Head"/>, from pair <paramref name="from"/> on.</summary>
    public static void HeadScalar(float* x, float* cos, float* sin, int half, bool inverse, int from = 0)
    {
        for (int i = from; i < half; i++)
        {
            float a = x[i], b = x[half + i], s = inverse ? -sin[i] : sin[i];
            x[i] = a * cos[i] - b * s;
            x[half + i] = b * cos[i] + a * s;
        }
    }
}
