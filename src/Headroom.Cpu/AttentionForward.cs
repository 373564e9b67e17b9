using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Causal attention with an online softmax (Dao et al., 2022). A part is 32 queries of one head of one sequence, held
/// as the lanes of transposed blocks: scores [key][query] and output [channel][query], so that softmax needs no
/// horizontal operation and K and V are read in place.
/// </summary>
internal static unsafe class AttentionForward
{
    /// <summary>Keys of a block.</summary>
    public const int Keys = 64;
    /// <summary>Largest head dimension.</summary>
    public const int MaxHeadDim = 256;
    private const int Lanes = AttentionTile.Lanes;

    private struct Context
    {
        public float* Q, K, V, O, Lse;
        public int* Offsets;
        public AttentionShape Shape;
        public int Sequences, Blocks, Past, Rows;
        public bool Simd;
    }

    public static void Run(
        WorkerPool pool, Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor o, Tensor lse,
        bool simd = true)
    {
        CheckHeadDim(shape);
        var c = new Context
        {
            Q = q.F,
            K = k.F,
            V = v.F,
            O = o.F,
            Lse = lse.F,
            Offsets = offsets.I,
            Shape = shape,
            Sequences = (int)offsets.Count - 1,
            Simd = simd,
        };
        int longest = 0;
        for (int i = 0; i < c.Sequences; i++) longest = Math.Max(longest, c.Offsets[i + 1] - c.Offsets[i]);
        c.Blocks = (longest + Lanes - 1) / Lanes;
        pool.Run(&Part, &c, c.Blocks * c.Sequences * shape.NumHeads);
    }

    /// <summary>Rows of one sequence after <paramref name="past"/> cached ones.</summary>
    public static void RunCached(
        WorkerPool pool, Tensor q, Tensor k, Tensor v, int past, in AttentionShape shape, Tensor o)
    {
        CheckHeadDim(shape);
        var c = new Context
        {
            Q = q.F,
            K = k.F,
            V = v.F,
            O = o.F,
            Shape = shape,
            Sequences = 1,
            Past = past,
            Rows = q.Rows,
            Simd = true,
        };
        c.Blocks = (q.Rows + Lanes - 1) / Lanes;
        pool.Run(&Part, &c, c.Blocks * shape.NumHeads);
    }

    /// <summary>Scratch of a worker lies on its stack, hence the bound.</summary>
    public static void CheckHeadDim(in AttentionShape shape)
    {
        if (shape.HeadDim > MaxHeadDim)
            throw new NotSupportedException($"head_dim {shape.HeadDim} is larger than {MaxHeadDim}.");
    }

    // The longest blocks come first, so that the last parts are short.
    private static void Part(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int heads = c->Shape.NumHeads, perBlock = c->Sequences * heads;
        int block = c->Blocks - 1 - part / perBlock, sequence = part % perBlock / heads, head = part % heads;
        int from = c->Offsets == null ? 0 : c->Offsets[sequence];
        int length = c->Offsets == null ? c->Rows : c->Offsets[sequence + 1] - from;
        int start = block * Lanes, n = Math.Min(Lanes, length - start);
        if (n <= 0) return;
        int d = c->Shape.HeadDim, kv = head / (heads / c->Shape.NumKeyValueHeads);
        nint ldq = heads * d, ldk = c->Shape.NumKeyValueHeads * d;
        long row = from + start;
        Block(
            c,
            c->Q + row * ldq + head * d,
            ldq,
            n,
            start + c->Past,
            c->K + from * ldk + kv * d,
            c->V + from * ldk + kv * d,
            ldk,
            c->O + row * ldq + head * d, c->Lse == null ? null : c->Lse + row * heads + head);
    }

    [SkipLocalsInit]
    private static void Block(
        Context* c, float* q, nint ldq, int n, int query0, float* k, float* v, nint ldk, float* o, float* lse)
    {
        int d = c->Shape.HeadDim, window = c->Shape.SlidingWindow;
        bool simd = c->Simd;
        float* raw = stackalloc float[(2 * d + Keys + 3) * Lanes + 16];
        float* scratch = Align(raw);
        float* qt = scratch,
            ot = qt + d * Lanes,
            s = ot + d * Lanes,
            max = s + Keys * Lanes,
            sum = max + Lanes,
            alpha = sum + Lanes;
        AttentionTile.Pack(q, ldq, n, d, c->Shape.Scale, qt);
        for (int i = 0; i < Lanes; i++) { max[i] = -1e30f; sum[i] = 0; }

        int lastKey = query0 + n, firstKey = window > 0 ? Math.Max(0, query0 - window + 1) / Keys * Keys : 0;
        for (int key0 = firstKey; key0 < lastKey; key0 += Keys)
        {
            int keys = Math.Min(Keys, lastKey - key0);
            AttentionTile.Multiply(
                simd, keys, k + key0 * ldk, ldk, 1, d, qt, Lanes, s, Lanes, AttentionTile.Start.Zero);
            if (key0 + keys - 1 > query0 || (window > 0 && query0 + n - 1 - key0 >= window))
                AttentionTile.Mask(s, keys, key0, query0, window);
            if (simd) Softmax(s, keys, max, sum, alpha);
            else SoftmaxScalar(s, keys, max, sum, alpha);
            AttentionTile.Multiply(simd, d, v + key0 * ldk, 1, ldk, keys, s, Lanes, ot, Lanes,
                key0 == firstKey ? AttentionTile.Start.Zero : AttentionTile.Start.Rescale, alpha);
        }
        for (int i = 0; i < n; i++)
        {
            if (lse != null) lse[(nint)i * c->Shape.NumHeads] = max[i] + MathF.Log(sum[i]);
            alpha[i] = 1f / sum[i];
        }
        AttentionTile.Unpack(ot, alpha, n, d, o, ldq);
    }

    /// <summary>Rounds a stack pointer up to a cache line; 16 spare elements are needed.</summary>
    public static float* Align(float* p) => (float*)(((nint)p + 63) & ~63);

    /// <summary>
    /// s = exp(s - new max); max, sum and alpha (the factor for what was gathered before) of every lane are updated.
    /// </summary>
    public static void Softmax(float* s, int keys, float* max, float* sum, float* alpha)
    {
        for (int i = 0; i < Lanes; i += 8)
        {
            var m = Vector256.Load(max + i);
            var old = m;
            float* p = s + i;
            for (int j = 0; j < keys; j++, p += Lanes) m = Vector256.MaxNative(Vector256.Load(p), m);
            var a = VectorMath.Exp(old - m);
            Vector256.Store(a, alpha + i);
            Vector256.Store(m, max + i);
            var total = Vector256<float>.Zero;
            p = s + i;
            for (int j = 0; j < keys; j++, p += Lanes)
            {
                var e = VectorMath.Exp(Vector256.Load(p) - m);
                Vector256.Store(e, p);
                total += e;
            }
            Vector256.Store(Vector256.FusedMultiplyAdd(Vector256.Load(sum + i), a, total), sum + i);
        }
    }

    /// <summary>Scalar twin of <see cref="Softmax"/>.</summary>
    public static void SoftmaxScalar(float* s, int keys, float* max, float* sum, float* alpha)
    {
        for (int i = 0; i < Lanes; i++)
        {
            float m = max[i], total = 0;
            for (int j = 0; j < keys; j++) if (s[j * Lanes + i] > m) m = s[j * Lanes + i];
            alpha[i] = VectorMath.Exp(max[i] - m);
            max[i] = m;
            for (int j = 0; j < keys; j++)
            {
                float e = VectorMath.Exp(s[j * Lanes + i] - m);
                s[j * Lanes + i] = e;
                total += e;
            }
            sum[i] = MathF.FusedMultiplyAdd(sum[i], alpha[i], total);
        }
    }
}
