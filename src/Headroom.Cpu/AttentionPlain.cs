using System.Runtime.CompilerServices;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>Row-by-row attention: the materialising version for comparison, and decoding over a cache.</summary>
internal static unsafe class AttentionPlain
{
    private const int Rows = 16, Chunk = 256;
    /// <summary>From this many new rows on, the blocked kernel serves the cache.</summary>
    public const int BlockedRows = 8;

    private struct Context
    {
        public float* Q, K, V, O, Scores;
        public AttentionShape Shape;
        public int Head, Length, Past;
        public nint Columns;
    }

    public static void Materialized(
        WorkerPool pool, Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor scores, Tensor o)
    {
        nint ldq = shape.NumHeads * shape.HeadDim, ldk = shape.NumKeyValueHeads * shape.HeadDim;
        for (int s = 0; s < offsets.Count - 1; s++)
        {
            nint from = offsets.I[s];
            int length = (int)(offsets.I[s + 1] - from);
            for (int head = 0; head < shape.NumHeads; head++)
            {
                var c = new Context
                {
                    Q = q.F + from * ldq,
                    K = k.F + from * ldk,
                    V = v.F + from * ldk,
                    O = o.F + from * ldq,
                    Scores = scores.F,
                    Shape = shape,
                    Head = head,
                    Length = length,
                    Columns = scores.Columns,
                };
                pool.Run(&MaterializedPart, &c, (length + Rows - 1) / Rows);
            }
        }
    }

    private static void MaterializedPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int heads = c->Shape.NumHeads,
            kvHeads = c->Shape.NumKeyValueHeads,
            d = c->Shape.HeadDim,
            window = c->Shape.SlidingWindow;
        nint ldq = heads * d, ldk = kvHeads * d, kv = c->Head / (heads / kvHeads) * d;
        for (int i = part * Rows; i < Math.Min(c->Length, (part + 1) * Rows); i++)
        {
            float* q = c->Q + i * ldq + c->Head * d, o = c->O + i * ldq + c->Head * d, p = c->Scores + i * c->Columns;
            int first = window > 0 ? Math.Max(0, i - window + 1) : 0;
            float max = float.NegativeInfinity, sum = 0;
            for (int j = first; j <= i; j++)
            {
                p[j] = VectorMath.Dot(q, c->K + j * ldk + kv, d) * c->Shape.Scale;
                max = MathF.Max(max, p[j]);
            }
            for (int j = first; j <= i; j++) sum += p[j] = VectorMath.Exp(p[j] - max);
            new Span<float>(o, d).Clear();
            for (int j = first; j <= i; j++) VectorMath.Axpy(p[j] / sum, c->V + j * ldk + kv, o, d);
        }
    }

    public static void Cached(
        WorkerPool pool, Tensor q, Tensor k, Tensor v, int past, in AttentionShape shape, Tensor o)
    {
        if (q.Rows >= BlockedRows)
        {
            AttentionForward.RunCached(pool, q, k, v, past, shape, o);
            return;
        }
        var c = new Context { Q = q.F, K = k.F, V = v.F, O = o.F, Shape = shape, Length = q.Rows, Past = past };
        pool.Run(&CachedPart, &c, q.Rows * shape.NumHeads);
    }

    [SkipLocalsInit]
    private static void CachedPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int heads = c->Shape.NumHeads,
            kvHeads = c->Shape.NumKeyValueHeads,
            d = c->Shape.HeadDim,
            window = c->Shape.SlidingWindow;
        int row = part / heads, head = part % heads, position = c->Past + row;
        nint ldk = kvHeads * d, kv = head / (heads / kvHeads) * d;
        float* q = c->Q + (nint)part * d, o = c->O + (nint)part * d;
        float* p = stackalloc float[Chunk];
        new Span<float>(o, d).Clear();
        float max = -1e30f, sum = 0;
        for (int start = window > 0 ? Math.Max(0, position - window + 1) : 0; start <= position; start += Chunk)
        {
            int n = Math.Min(Chunk, position + 1 - start);
            float* keys = c->K + start * ldk + kv, values = c->V + start * ldk + kv;
            float old = max;
            for (int j = 0; j < n; j++)
            {
                p[j] = VectorMath.Dot(q, keys + j * ldk, d) * c->Shape.Scale;
                max = MathF.Max(max, p[j]);
            }
            float alpha = VectorMath.Exp(old - max);
            sum *= alpha;
            if (alpha != 1f) for (int i = 0; i < d; i++) o[i] *= alpha;
            for (int j = 0; j < n; j++)
            {
                float e = VectorMath.Exp(p[j] - max);
                sum += e;
                VectorMath.Axpy(e, values + j * ldk, o, d);
            }
        }
        float inverse = 1f / sum;
        for (int i = 0; i < d; i++) o[i] *= inverse;
    }
}
