using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Gradient of <see cref="AttentionForward"/>. A part is one key/value head of one sequence with all its query heads,
/// in a fixed order, so dK and dV are summed without atomics. Probabilities are recomputed from the log-sum-exp.
/// </summary>
internal static unsafe class AttentionBackward
{
    private const int Lanes = AttentionTile.Lanes, Keys = AttentionForward.Keys;

    private struct Context
    {
        public float* Q, K, V, O, Lse, DO, Delta, DQ, DK, DV;
        public int* Offsets;
        public AttentionShape Shape;
        public int Sequences;
        public bool Simd;
    }

    public static void Run(
        WorkerPool pool,
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor o,
        Tensor lse,
        Tensor dO,
        Tensor offsets,
        in AttentionShape shape,
        Tensor delta,
        Tensor dq, Tensor dk, Tensor dv, bool simd = true)
    {
        AttentionForward.CheckHeadDim(shape);
        var c = new Context
        {
            Q = q.F,
            K = k.F,
            V = v.F,
            O = o.F,
            Lse = lse.F,
            DO = dO.F,
            Delta = delta.F,
            DQ = dq.F,
            DK = dk.F,
            DV = dv.F,
            Offsets = offsets.I,
            Shape = shape,
            Sequences = (int)offsets.Count - 1,
            Simd = simd,
        };
        pool.Run(&Part, &c, c.Sequences * shape.NumKeyValueHeads);
    }

    [SkipLocalsInit]
    private static void Part(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int heads = c->Shape.NumHeads,
            kvHeads = c->Shape.NumKeyValueHeads,
            d = c->Shape.HeadDim,
            group = heads / kvHeads;
        int sequence = part / kvHeads,
            kv = part % kvHeads,
            from = c->Offsets[sequence],
            length = c->Offsets[sequence + 1] - from;
        nint ldq = heads * d, ldk = kvHeads * d;
        nint keyAt = from * ldk + kv * d;
        for (int t = 0; t < length; t++)
        {
            new Span<float>(c->DK + keyAt + t * ldk, d).Clear();
            new Span<float>(c->DV + keyAt + t * ldk, d).Clear();
        }
        float* raw = stackalloc float[(3 * d + 2 * Keys + 2) * Lanes + 16];
        float* scratch = AttentionForward.Align(raw);
        for (int head = kv * group; head < (kv + 1) * group; head++)
            for (int start = 0; start < length; start += Lanes)
                Block(c, head, from + start, Math.Min(Lanes, length - start), start, keyAt, ldq, ldk, scratch);
    }

    private static void Block(
        Context* c, int head, long row, int n, int query0, nint keyAt, nint ldq, nint ldk, float* scratch)
    {
        int d = c->Shape.HeadDim, heads = c->Shape.NumHeads, window = c->Shape.SlidingWindow;
        bool simd = c->Simd;
        float scale = c->Shape.Scale;
        float* qt = scratch,
            dot = qt + d * Lanes,
            dqt = dot + d * Lanes,
            p = dqt + d * Lanes,
            ds = p + Keys * Lanes,
            lse = ds + Keys * Lanes,
            delta = lse + Lanes;
        nint at = (nint)row * ldq + head * d;
        float* q = c->Q + at, dO = c->DO + at, k = c->K + keyAt, v = c->V + keyAt;
        AttentionTile.Pack(q, ldq, n, d, scale, qt);
        AttentionTile.Pack(dO, ldq, n, d, 1f, dot);
        for (int i = 0; i < Lanes; i++) lse[i] = delta[i] = 0;
        for (int i = 0; i < n; i++)
        {
            long r = (row + i) * heads + head;
            lse[i] = c->Lse[r];
            c->Delta[r] = delta[i] = VectorMath.Dot(dO + i * ldq, c->O + at + i * ldq, d);
        }

        int lastKey = query0 + n, firstKey = window > 0 ? Math.Max(0, query0 - window + 1) / Keys * Keys : 0;
        for (int key0 = firstKey; key0 < lastKey; key0 += Keys)
        {
            int keys = Math.Min(Keys, lastKey - key0);
            AttentionTile.Multiply(
                simd, keys, k + key0 * ldk, ldk, 1, d, qt, Lanes, p, Lanes, AttentionTile.Start.Zero);
            if (key0 + keys - 1 > query0 || (window > 0 && query0 + n - 1 - key0 >= window))
                AttentionTile.Mask(p, keys, key0, query0, window);
            AttentionTile.Multiply(
                simd, keys, v + key0 * ldk, ldk, 1, d, dot, Lanes, ds, Lanes, AttentionTile.Start.Zero);
            if (simd) Scores(p, ds, keys, lse, delta, scale);
            else ScoresScalar(p, ds, keys, lse, delta, scale);
            AttentionTile.Multiply(simd, d, k + key0 * ldk, 1, ldk, keys, ds, Lanes, dqt, Lanes,
                key0 == firstKey ? AttentionTile.Start.Zero : AttentionTile.Start.Accumulate);
            Accumulate(simd, keys, p, n, dO, ldq, d, c->DV + keyAt + key0 * ldk, ldk);
            Accumulate(simd, keys, ds, n, q, ldq, d, c->DK + keyAt + key0 * ldk, ldk);
        }
        for (int i = 0; i < Lanes; i++) lse[i] = 1f;
        AttentionTile.Unpack(dqt, lse, n, d, c->DQ + at, ldq);
    }

    // out[key][channel] += sum over queries of a[key][query] * b[query][channel], 32 channels at a time.
    [SkipLocalsInit]
    private static void Accumulate(
        bool simd, int keys, float* a, int n, float* b, nint ldb, int d, float* output, nint ld)
    {
        int c = 0;
        for (; c <= d - Lanes; c += Lanes)
            AttentionTile.Multiply(
                simd, keys, a, Lanes, 1, n, b + c, ldb, output + c, ld, AttentionTile.Start.Accumulate);
        for (; c < d; c++)
            for (int j = 0; j < keys; j++)
            {
                float sum = output[j * ld + c];
                for (int i = 0; i < n; i++) sum = MathF.FusedMultiplyAdd(a[j * Lanes + i], b[i * ldb + c], sum);
                output[j * ld + c] = sum;
            }
    }

    /// <summary>p = exp(p - lse), ds = p * (ds - delta) * scale, where ds holds dO V^T on entry.</summary>
    public static void Scores(float* p, float* ds, int keys, float* lse, float* delta, float scale)
    {
        for (int i = 0; i < Lanes; i += 8)
        {
            Vector256<float> l = Vector256.Load(lse + i), e = Vector256.Load(delta + i);
            float* s = p + i, t = ds + i;
            for (int j = 0; j < keys; j++, s += Lanes, t += Lanes)
            {
                var x = VectorMath.Exp(Vector256.Load(s) - l);
                Vector256.Store(x, s);
                Vector256.Store(x * (Vector256.Load(t) - e) * scale, t);
            }
        }
    }

    /// <summary>Scalar twin of <see cref="Scores"/>.</summary>
    public static void ScoresScalar(float* p, float* ds, int keys, float* lse, float* delta, float scale)
    {
        for (int j = 0; j < keys; j++)
            for (int i = 0; i < Lanes; i++)
            {
                float x = VectorMath.Exp(p[j * Lanes + i] - lse[i]);
                p[j * Lanes + i] = x;
                ds[j * Lanes + i] = x * (ds[j * Lanes + i] - delta[i]) * scale;
            }
    }
}
