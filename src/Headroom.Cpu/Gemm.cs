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
    public static Operand RowMajor(Tensor x, int columns) => new() { Data = x.F, RowStride = columns, ColumnStride = 1 };
    /// <summary>The transpose of a row-major x with <paramref name="columns"/> columns.</summary>
    public static Operand Transposed(Tensor x, int columns) => new() { Data = x.F, RowStride = 1, ColumnStride = columns };
}

/// <summary>
/// C[M, N] (+)= alpha * A[M, K] B[K, N], after the BLIS scheme (Van Zee and van de Geijn, 2015): A is packed once into shared panels of 12 rows, each part packs its
/// own columns of B into panels of 32, dequantizing on the way, and 12 x 32 tiles stay in registers over a K block. The order of summation over K is
/// the same for every row and every thread count, so a token's result does not depend on the other tokens of the batch.
/// </summary>
internal static unsafe class Gemm
{
    private const int MR = GemmTile.MR, NR = GemmTile.NR;
    private const int KC = 256; // B panel 32 KB
    private const int MaxPanels = 12; // 12 x 32 columns x 256 x 4 B = 384 KB of packed B a worker
    private const int PanelsOfA = 12; // 144 rows x 256 x 4 B = 144 KB of packed A in the second-level cache at a time

    private struct Job
    {
        public Operand A, B;
        public int M, N, K, K0, KLen, M0, MLen, PanelsPerPart, MParts;
        public float* C;
        public long Ldc;
        public float Alpha;
        public bool Accumulate;
        public float* Packed;
        public byte* Scratch;
        public long ScratchStride;
    }

    /// <summary>Runs the product on the ops' pool and scratch.</summary>
    public static void Run(CpuOps ops, in Operand a, in Operand b, int m, int n, int k, float alpha, bool accumulate, float* c, long ldc)
    {
        if (m == 0 || n == 0 || k == 0) return;
        var pool = ops.Pool;
        long capacity = CpuOps.SharedBytes / 4;
        var job = new Job
        {
            A = a, B = b, M = m, N = n, K = k, C = c, Ldc = ldc, Alpha = alpha,
            Packed = (float*)ops.Shared, Scratch = ops.Scratch(0), ScratchStride = CpuOps.WorkerBytes,
        };
        int panelsN = (n + NR - 1) / NR, threads = pool.Threads;
        int parts = threads * ((panelsN + threads * MaxPanels - 1) / (threads * MaxPanels));
        job.PanelsPerPart = (panelsN + parts - 1) / parts;
        int nParts = (panelsN + job.PanelsPerPart - 1) / job.PanelsPerPart;
        // K in pieces of whole KC blocks, M in pieces of whole panels, so that packed A fits the shared scratch.
        int kStep = k <= 8 * KC ? k : 8 * KC;
        int mStep = (int)Math.Min(((long)m + MR - 1) / MR * MR, capacity / kStep / MR * MR);
        for (int k0 = 0; k0 < k; k0 += kStep)
            for (int m0 = 0; m0 < m; m0 += mStep)
            {
                job.K0 = k0;
                job.KLen = Math.Min(kStep, k - k0);
                job.M0 = m0;
                job.MLen = Math.Min(mStep, m - m0);
                job.Accumulate = accumulate || k0 > 0;
                int panelsM = (job.MLen + MR - 1) / MR;
                job.MParts = nParts >= threads ? 1 : Math.Min(panelsM, 2 * threads);
                pool.Run(&PackA, &job, panelsM);
                pool.Run(&Compute, &job, nParts * job.MParts);
            }
    }

    private static void PackA(void* context, int panel, int worker)
    {
        ref var j = ref *(Job*)context;
        int row = j.M0 + panel * MR, rows = Math.Min(MR, j.M0 + j.MLen - row);
        float* dst = j.Packed + (long)panel * MR * j.KLen;
        ref var a = ref j.A;
        if (a.Kind == OperandKind.Dropped)
        {
            float* temp = (float*)(j.Scratch + worker * j.ScratchStride);
            for (int i = 0; i < rows; i++)
            {
                float* src = a.Data + (row + i) * a.RowStride + j.K0;
                new ReadOnlySpan<float>(src, j.KLen).CopyTo(new Span<float>(temp, j.KLen));
                DropoutMask.Apply(a.Dropout, (row + i) * a.RowStride + j.K0, j.KLen, temp);
                for (int k = 0; k < j.KLen; k++) dst[(long)k * MR + i] = temp[k];
            }
        }
        else
        {
            float* src = a.Data + row * a.RowStride + j.K0 * a.ColumnStride;
            long rs = a.RowStride, cs = a.ColumnStride;
            if (rows == MR)
                for (int k = 0; k < j.KLen; k++)
                {
                    float* s = src + k * cs, d = dst + (long)k * MR;
                    for (int i = 0; i < MR; i++) d[i] = s[i * rs];
                }
            else
                for (int k = 0; k < j.KLen; k++)
                    for (int i = 0; i < rows; i++) dst[(long)k * MR + i] = src[k * cs + i * rs];
        }
        if (rows < MR)
            for (int k = 0; k < j.KLen; k++)
                for (int i = rows; i < MR; i++) dst[(long)k * MR + i] = 0;
    }

    private static void Compute(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        int panelsM = (j.MLen + MR - 1) / MR;
        int n0 = part / j.MParts * j.PanelsPerPart * NR, n1 = Math.Min(j.N, n0 + j.PanelsPerPart * NR);
        int perPart = (panelsM + j.MParts - 1) / j.MParts, p0 = part % j.MParts * perPart, p1 = Math.Min(panelsM, p0 + perPart);
        if (p0 >= p1) return;
        float* packed = (float*)(j.Scratch + worker * j.ScratchStride);
        float* temp = packed + MaxPanels * NR * KC;
        float* tile = temp + 4096;
        for (int kb = 0; kb < j.KLen; kb += KC)
        {
            int kc = Math.Min(KC, j.KLen - kb);
            PackB(ref j, n0, n1, j.K0 + kb, kc, packed, temp);
            bool accumulate = j.Accumulate || kb > 0;
            for (int pb = p0; pb < p1; pb += PanelsOfA)
                for (int n = n0; n < n1; n += NR)
                {
                    float* b = packed + (long)(n - n0) * kc;
                    for (int p = pb; p < Math.Min(p1, pb + PanelsOfA); p++)
                    {
                        float* a = j.Packed + (long)p * MR * j.KLen + (long)kb * MR;
                        int row = j.M0 + p * MR, rows = Math.Min(MR, j.M0 + j.MLen - row), columns = Math.Min(NR, n1 - n);
                        float* c = j.C + row * j.Ldc + n;
                        if (rows == MR && columns == NR) GemmTile.Multiply(kc, a, b, c, j.Ldc, j.Alpha, accumulate);
                        else Edge(kc, a, b, c, j.Ldc, j.Alpha, accumulate, rows, columns, tile);
                    }
                }
        }
    }

    // The same tile through a buffer: an edge row sums in the same order as an inner one.
    private static void Edge(int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate, int rows, int columns, float* tile)
    {
        for (int i = 0; i < rows; i++)
            for (int k = 0; k < columns; k++) tile[i * NR + k] = accumulate ? c[i * ldc + k] : 0;
        GemmTile.Multiply(kc, a, b, tile, NR, alpha, accumulate);
        for (int i = 0; i < rows; i++)
            for (int k = 0; k < columns; k++) c[i * ldc + k] = tile[i * NR + k];
    }

    /// <summary>Columns [n0, n1) of rows [k0, k0 + kc) of B into panels [k, 32], zero-padded.</summary>
    private static void PackB(ref Job j, int n0, int n1, int k0, int kc, float* packed, float* temp)
    {
        ref var b = ref j.B;
        switch (b.Kind)
        {
            case OperandKind.WeightTransposed:
                for (int n = n0; n < n1; n += NR)
                {
                    float* panel = packed + (long)(n - n0) * kc;
                    int columns = Math.Min(NR, n1 - n);
                    for (int i = 0; i < columns; i++)
                    {
                        WeightRows.Read(b.W, n + i, k0, kc, temp);
                        float* d = panel + i;
                        for (int k = 0; k < kc; k++) d[k * NR] = temp[k];
                    }
                    Pad(panel, kc, columns);
                }
                break;
            case OperandKind.Weight:
                for (int k = 0; k < kc; k++)
                {
                    WeightRows.Read(b.W, k0 + k, n0, n1 - n0, temp);
                    Scatter(packed, temp, k, kc, n1 - n0);
                }
                PadLast(packed, kc, n1 - n0);
                break;
            case OperandKind.Dropped:
                for (int k = 0; k < kc; k++)
                {
                    long at = (k0 + k) * b.RowStride + n0;
                    new ReadOnlySpan<float>(b.Data + at, n1 - n0).CopyTo(new Span<float>(temp, n1 - n0));
                    DropoutMask.Apply(b.Dropout, at, n1 - n0, temp);
                    Scatter(packed, temp, k, kc, n1 - n0);
                }
                PadLast(packed, kc, n1 - n0);
                break;
            default:
                if (b.ColumnStride == 1)
                {
                    for (int k = 0; k < kc; k++) Scatter(packed, b.Data + (k0 + k) * b.RowStride + n0, k, kc, n1 - n0);
                    PadLast(packed, kc, n1 - n0);
                    break;
                }
                for (int n = n0; n < n1; n += NR)
                {
                    float* panel = packed + (long)(n - n0) * kc;
                    int columns = Math.Min(NR, n1 - n);
                    for (int i = 0; i < columns; i++)
                    {
                        float* s = b.Data + (n + i) * b.ColumnStride + k0 * b.RowStride;
                        for (int k = 0; k < kc; k++) panel[k * NR + i] = s[k * b.RowStride];
                    }
                    Pad(panel, kc, columns);
                }
                break;
        }
    }

    private static void Scatter(float* packed, float* row, int k, int kc, int columns)
    {
        for (int n = 0; n < columns; n += NR)
            new ReadOnlySpan<float>(row + n, Math.Min(NR, columns - n)).CopyTo(new Span<float>(packed + (long)n * kc + k * NR, NR));
    }

    private static void PadLast(float* packed, int kc, int columns)
    {
        int last = columns % NR;
        if (last != 0) Pad(packed + (long)(columns - last) * kc, kc, last);
    }

    private static void Pad(float* panel, int kc, int columns)
    {
        if (columns == NR) return;
        for (int k = 0; k < kc; k++)
            for (int i = columns; i < NR; i++) panel[k * NR + i] = 0;
    }
}
