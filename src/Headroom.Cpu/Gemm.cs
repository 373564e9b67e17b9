using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>Where the elements of an operand come from.</summary>
internal enum OperandKind : byte
{
    /// <summary>float32 with strides: element (i, k) at i * RowStride + k * ColumnStride.</summary>
    Dense,
    /// <summary>The same, times the dropout mask of element (row, column) of the matrix as stored.</summary>
    Dropped,
    /// <summary>A weight in any storage, read as W^T: B[k, n] = W[n, k].</summary>
    WeightTransposed,
    /// <summary>A weight in any storage, as it stands: B[k, n] = W[k, n].</summary>
    Weight,
}

/// <summary>One operand of a product.</summary>
internal unsafe struct Operand
{
    public OperandKind Kind;
    public float* Data;
    public long RowStride, ColumnStride;
    public Dropout Dropout;
    public LinearWeight W;

    /// <summary>x as it stands, row-major with <paramref name="columns"/> columns.</summary>
    public static Operand RowMajor(Tensor x, int columns) =>
        new()
        {
            Data = x.F,
            RowStride = columns,
            ColumnStride = 1,
        };
    /// <summary>The transpose of a row-major x with <paramref name="columns"/> columns.</summary>
    public static Operand Transposed(Tensor x, int columns) =>
        new()
        {
            Data = x.F,
            RowStride = 1,
            ColumnStride = columns,
        };
}

/// <summary>
/// C[M, N] (+)= alpha * A[M, K] B[K, N], after the BLIS scheme (Van Zee and van de Geijn, 2015): A is packed once into
/// shared panels of 12 rows, each part packs its own columns of B into panels of 32, dequantizing on the way, and 12 x
/// 32 tiles stay in registers over a K block. The blocks of K depend on K alone and every tile sums in the order of k,
/// so a token's result depends neither on the other tokens of the batch nor on the number of threads.
/// </summary>
internal static unsafe class Gemm
{
    private const int MR = GemmTile.MR, NR = GemmTile.NR;
    // A panel of A (12 x 576 x 4 B = 27 KB) stays in the first-level cache while it meets the panels of B of its part,
    // which stream from the second level.
    private const int MaxKC = 576;
    private const int MaxPanels = 6; // 6 x 32 columns x 576 x 4 B = 432 KB of packed B a worker
    private const long PackedA = 1 << 18; // 1 MB: every part reads all of it
    private const int PartsPerThread = 4; // so that a worker that was held up leaves work to the others

    /// <summary>Largest <see cref="Extra.Count"/>.</summary>
    public const int MaxExtra = 64;

    /// <summary>
    /// More terms of the sum, after those of K: + alpha * scale * A[m, i] * B[n, i], both row-major with Count columns.
    /// How an adapter joins its layer's product.
    /// </summary>
    public struct Extra
    {
        public float* A, B;
        public int Count;
        public float Scale;
    }

    private struct Job
    {
        public Operand A, B;
        public Extra Extra;
        public int M, N, K, KC, K0, KLen, PanelK, M0, MLen, PanelsPerPart, MParts;
        public float* C;
        public long Ldc;
        public float Alpha;
        public bool Accumulate;
        public float* Packed;
        public byte* Scratch;
        public long ScratchStride;
    }

    /// <summary>Runs the product on the ops' pool and scratch.</summary>
    public static void Run(
        CpuOps ops, in Operand a, in Operand b, int m, int n, int k, float alpha, bool accumulate, float* c, long ldc,
        in Extra extra = default)
    {
        if (m == 0 || n == 0 || k == 0) return;
        var pool = ops.Pool;
        var job = new Job
        {
            A = a,
            B = b,
            Extra = extra,
            M = m,
            N = n,
            K = k,
            C = c,
            Ldc = ldc,
            Alpha = alpha,
            Packed = (float*)ops.Shared,
            Scratch = ops.Scratch(0),
            ScratchStride = CpuOps.WorkerBytes,
        };
        int blocks = (k + MaxKC - 1) / MaxKC;
        job.KC = (k + blocks - 1) / blocks;
        int panelsN = (n + NR - 1) / NR, threads = pool.Threads;
        int parts = Math.Max(threads, Math.Min(panelsN / 3, PartsPerThread * threads));
        parts = Math.Max(parts, (panelsN + MaxPanels - 1) / MaxPanels);
        job.PanelsPerPart = (panelsN + parts - 1) / parts;
        int nParts = (panelsN + job.PanelsPerPart - 1) / job.PanelsPerPart;
        // All rows of as many K blocks as keep packed A small, one at least; pieces of M, for which B is packed again,
        // only when one block does not fit the scratch.
        long capacity = CpuOps.SharedBytes / 4;
        int rows = (m + MR - 1) / MR * MR;
        int kStep = (int)Math.Clamp(PackedA / rows / job.KC, 1, blocks) * job.KC;
        int mStep = (int)Math.Min(rows, capacity / (kStep + extra.Count) / MR * MR);
        for (int k0 = 0; k0 < k; k0 += kStep)
            for (int m0 = 0; m0 < m; m0 += mStep)
            {
                job.K0 = k0;
                job.KLen = Math.Min(kStep, k - k0);
                job.PanelK = job.KLen + (k0 + job.KLen == k ? extra.Count : 0);
                job.M0 = m0;
                job.MLen = Math.Min(mStep, m - m0);
                job.Accumulate = accumulate || k0 > 0;
                int panelsM = (job.MLen + MR - 1) / MR;
                job.MParts = nParts >= threads ? 1 : Math.Min(panelsM, PartsPerThread * threads);
                pool.Run(&PackA, &job, panelsM);
                pool.Run(&Compute, &job, nParts * job.MParts);
            }
    }

    private static void PackA(void* context, int panel, int worker)
    {
        ref var j = ref *(Job*)context;
        int row = j.M0 + panel * MR, rows = Math.Min(MR, j.M0 + j.MLen - row);
        float* dst = j.Packed + (long)panel * MR * j.PanelK;
        ref var a = ref j.A;
        int extra = j.PanelK - j.KLen;
        if (rows < MR) new Span<float>(dst, MR * j.PanelK).Clear();
        if (extra > 0) Panels.Transpose(j.Extra.A + (long)row * extra, extra, rows, extra, dst + (long)j.KLen * MR, MR);
        if (a.Kind == OperandKind.Dropped)
        {
            float* temp = (float*)(j.Scratch + worker * j.ScratchStride);
            for (int k = 0; k < j.KLen; k += DroppedColumns)
            {
                int columns = Math.Min(DroppedColumns, j.KLen - k);
                for (int i = 0; i < rows; i++) CopyDropped(a, row + i, j.K0 + k, columns, temp + i * DroppedColumns);
                Panels.Transpose(temp, DroppedColumns, rows, columns, dst + (long)k * MR, MR);
            }
        }
        else
        {
            float* src = a.Data + row * a.RowStride + j.K0 * a.ColumnStride;
            if (a.ColumnStride == 1) Panels.Transpose(src, a.RowStride, rows, j.KLen, dst, MR);
            else if (rows == MR && a.RowStride == 1) Panels.Copy12(src, a.ColumnStride, j.KLen, dst);
            else
                for (int k = 0; k < j.KLen; k++)
                    for (int i = 0; i < rows; i++) dst[(long)k * MR + i] = src[k * a.ColumnStride + i * a.RowStride];
        }
    }

    private const int DroppedColumns = 256; // a multiple of what the mask makes at a time

    private static void CopyDropped(in Operand x, long row, long column, int count, float* dst)
    {
        long at = row * x.RowStride + column;
        Unsafe.CopyBlockUnaligned(dst, x.Data + at, (uint)count * 4);
        DropoutMask.Apply(x.Dropout, at, count, dst);
    }

    private static void Compute(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        int panelsM = (j.MLen + MR - 1) / MR;
        int n0 = part / j.MParts * j.PanelsPerPart * NR, n1 = Math.Min(j.N, n0 + j.PanelsPerPart * NR);
        int perPart = (panelsM + j.MParts - 1) / j.MParts,
            p0 = part % j.MParts * perPart,
            p1 = Math.Min(panelsM, p0 + perPart);
        if (p0 >= p1) return;
        float* packed = (float*)(j.Scratch + worker * j.ScratchStride);
        float* temp = packed + MaxPanels * NR * (MaxKC + MaxExtra);
        float* tile = temp + PackTemp;
        for (int kb = 0; kb < j.KLen; kb += j.KC)
        {
            int kc = Math.Min(j.KC, j.KLen - kb);
            int extra = kb + kc == j.KLen ? j.PanelK - j.KLen : 0;
            PackB(ref j, n0, n1, j.K0 + kb, kc, extra, packed, temp);
            kc += extra;
            bool accumulate = j.Accumulate || kb > 0;
            for (int p = p0; p < p1; p++)
            {
                float* a = j.Packed + (long)p * MR * j.PanelK + (long)kb * MR;
                int row = j.M0 + p * MR, rows = Math.Min(MR, j.M0 + j.MLen - row);
                for (int n = n0; n < n1; n += NR)
                {
                    float* b = packed + (long)(n - n0) * kc;
                    int columns = Math.Min(NR, n1 - n);
                    float* c = j.C + row * j.Ldc + n;
                    if (rows == MR && columns == NR) GemmTile.Multiply(kc, a, b, c, j.Ldc, j.Alpha, accumulate);
                    else if (rows == MR && columns == 16)
                        GemmTile.Multiply(kc, a, b, c, j.Ldc, j.Alpha, accumulate, 16);
                    else Edge(kc, a, b, c, j.Ldc, j.Alpha, accumulate, rows, columns, tile);
                }
            }
        }
    }

    // The same tile through a buffer: an edge row sums in the same order as an inner one.
    private static void Edge(
        int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate, int rows, int columns, float* tile
    )
    {
        if (accumulate)
            for (int i = 0; i < rows; i++)
                new ReadOnlySpan<float>(c + i * ldc, columns).CopyTo(new Span<float>(tile + i * NR, columns));
        GemmTile.Multiply(kc, a, b, tile, NR, alpha, accumulate, columns <= 16 ? 16 : NR);
        for (int i = 0; i < rows; i++)
            new ReadOnlySpan<float>(tile + i * NR, columns).CopyTo(new Span<float>(c + i * ldc, columns));
    }

    private const int PackTemp = 4 * MaxKC + NR * MaxPanels;

    /// <summary>
    /// Columns [n0, n1) of rows [k0, k0 + kc) of B, then the extra rows, into panels [k, 32], zero-padded.
    /// </summary>
    private static void PackB(ref Job j, int n0, int n1, int k0, int kc, int extra, float* packed, float* temp)
    {
        ref var b = ref j.B;
        int last = (n1 - n0) % NR;
        long stride = (long)NR * (kc + extra); // from panel to panel
        if (last != 0) new Span<float>(packed + (n1 - n0) / NR * stride, NR * (kc + extra)).Clear();
        bool rowsOfB =
            b.Kind is OperandKind.Weight or OperandKind.Dropped || (b.Kind == OperandKind.Dense && b.ColumnStride == 1);
        if (rowsOfB)
            for (int k = 0; k < kc; k++)
            {
                float* row = temp;
                if (b.Kind == OperandKind.Weight) WeightRows.Read(b.W, k0 + k, n0, n1 - n0, temp);
                else if (b.Kind == OperandKind.Dropped) CopyDropped(b, k0 + k, n0, n1 - n0, temp);
                else row = b.Data + (k0 + k) * b.RowStride + n0;
                float* d = packed + k * NR;
                int n = n0;
                for (; n + NR <= n1; n += NR, row += NR, d += stride) Panels.Copy32(row, d);
                if (n < n1) new ReadOnlySpan<float>(row, n1 - n).CopyTo(new Span<float>(d, NR));
            }
        else
            for (int n = n0; n < n1; n += NR)
            {
                float* panel = packed + (n - n0) / NR * stride;
                int columns = Math.Min(NR, n1 - n);
                if (b.Kind == OperandKind.WeightTransposed && b.W.Storage != WeightStorage.F32)
                    for (int i = 0; i < columns; i += 4)
                    {
                        int rows = Math.Min(4, columns - i);
                        for (int r = 0; r < rows; r++) WeightRows.Read(b.W, n + i + r, k0, kc, temp + r * kc);
                        Panels.Transpose(temp, kc, rows, kc, panel + i, NR);
                    }
                else if (b.Kind == OperandKind.WeightTransposed)
                    Panels.Transpose(b.W.Data.F + (long)n * b.W.In + k0, b.W.In, columns, kc, panel, NR);
                else if (b.RowStride == 1)
                    Panels.Transpose(b.Data + n * b.ColumnStride + k0, b.ColumnStride, columns, kc, panel, NR);
                else throw new InvalidOperationException("B has no contiguous dimension");
            }
        for (int n = n0; extra > 0 && n < n1; n += NR)
        {
            float* tail = packed + (n - n0) / NR * stride + (long)NR * kc;
            Panels.Transpose(j.Extra.B + (long)n * extra, extra, Math.Min(NR, n1 - n), extra, tail, NR);
            for (int i = 0; i < NR * extra; i += 8) (Vector256.Load(tail + i) * j.Extra.Scale).Store(tail + i);
        }
    }
}
