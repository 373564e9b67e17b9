using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>Memory ops: fill, copy, add, gather, scatter and the finiteness check.</summary>
internal static unsafe class ElementKernels
{
    private const long Chunk = 1 << 16;

    private struct Context
    {
        public byte* X, Y;
        public int* Rows;
        public long Count, RowBytes;
        public int Flag;
        public DType DType;
    }

    private static int Chunks(long count) => (int)((count + Chunk - 1) / Chunk);

    private static long Length(Context* c, int part) => Math.Min(Chunk, c->Count - part * Chunk);

    public static void Zero(WorkerPool pool, Tensor x)
    {
        var c = new Context { X = x.B, Count = x.Bytes };
        pool.Run(&ZeroPart, &c, Chunks(c.Count));
    }

    private static void ZeroPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        new Span<byte>(c->X + part * Chunk, (int)Length(c, part)).Clear();
    }

    public static void Copy(WorkerPool pool, Tensor src, Tensor dst)
    {
        if (src.Address == dst.Address) return;
        var c = new Context { X = src.B, Y = dst.B, Count = src.Bytes };
        pool.Run(&CopyPart, &c, Chunks(c.Count));
    }

    private static void CopyPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        long n = Length(c, part);
        Buffer.MemoryCopy(c->X + part * Chunk, c->Y + part * Chunk, n, n);
    }

    public static void Add(WorkerPool pool, Tensor x, Tensor y)
    {
        var c = new Context { X = x.B, Y = y.B, Count = x.Count };
        pool.Run(&AddPart, &c, Chunks(c.Count));
    }

    private static void AddPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        AddRow((float*)c->X + part * Chunk, (float*)c->Y + part * Chunk, (int)Length(c, part));
    }

    /// <summary>y += x.</summary>
    public static void AddRow(float* x, float* y, int n)
    {
        int i = 0;
        for (; i <= n - 8; i += 8) Vector256.Store(Vector256.Load(x + i) + Vector256.Load(y + i), y + i);
        AddRowScalar(x + i, y + i, n - i);
    }

    /// <summary>Scalar twin of <see cref="AddRow"/>.</summary>
    public static void AddRowScalar(float* x, float* y, int n)
    {
        for (int i = 0; i < n; i++) y[i] = x[i] + y[i];
    }

    public static void GatherRows(WorkerPool pool, Tensor x, Tensor rows, Tensor y) =>
        MoveRows(pool, x, rows, y, false);

    public static void ScatterRows(WorkerPool pool, Tensor y, Tensor rows, Tensor x)
    {
        Zero(pool, x);
        MoveRows(pool, x, rows, y, true);
    }

    // Between rows[i] of x and row i of y: gathered from x, or scattered into it.
    private static void MoveRows(WorkerPool pool, Tensor x, Tensor rows, Tensor y, bool scatter)
    {
        var c = new Context
        {
            X = x.B,
            Y = y.B,
            Rows = rows.I,
            Count = rows.Count,
            RowBytes = x.DType.Bytes(x.Columns),
            Flag = scatter ? 1 : 0,
        };
        pool.Run(&MovePart, &c, (int)((c.Count + 31) / 32));
    }

    private static void MovePart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        long end = Math.Min(c->Count, (part + 1L) * 32), n = c->RowBytes;
        for (long i = part * 32L; i < end; i++)
        {
            byte* there = c->X + c->Rows[i] * n, here = c->Y + i * n;
            if (c->Flag != 0) Buffer.MemoryCopy(here, there, n, n);
            else Buffer.MemoryCopy(there, here, n, n);
        }
    }

    public static bool AllFinite(WorkerPool pool, Tensor x)
    {
        if (x.DType is not (DType.F32 or DType.BF16 or DType.F16)) return true;
        var c = new Context { X = x.B, Count = x.Count, Flag = 1, DType = x.DType };
        pool.Run(&FinitePart, &c, Chunks(c.Count));
        return c.Flag == 1;
    }

    private static void FinitePart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int n = (int)Length(c, part);
        bool ok = c->DType == DType.F32
            ? Finite((float*)c->X + part * Chunk, n)
            : Finite16((ushort*)c->X + part * Chunk, n, (ushort)(c->DType == DType.BF16 ? 0x7F80 : 0x7C00));
        if (!ok) Volatile.Write(ref c->Flag, 0);
    }

    /// <summary>True when no exponent is all ones.</summary>
    public static bool Finite(float* x, int n)
    {
        var mask = Vector256.Create(0x7F800000);
        var bad = Vector256<int>.Zero;
        int i = 0;
        for (; i <= n - 8; i += 8) bad |= Vector256.Equals(Vector256.Load((int*)x + i) & mask, mask);
        return bad == Vector256<int>.Zero && FiniteScalar(x + i, n - i);
    }

    /// <summary>Scalar twin of <see cref="Finite"/>.</summary>
    public static bool FiniteScalar(float* x, int n)
    {
        for (int i = 0; i < n; i++) if (!float.IsFinite(x[i])) return false;
        return true;
    }

    private static bool Finite16(ushort* x, int n, ushort exponent)
    {
        var mask = Vector256.Create(exponent);
        var bad = Vector256<ushort>.Zero;
        int i = 0;
        for (; i <= n - 16; i += 16) bad |= Vector256.Equals(Vector256.Load(x + i) & mask, mask);
        if (bad != Vector256<ushort>.Zero) return false;
        for (; i < n; i++) if ((x[i] & exponent) == exponent) return false;
        return true;
    }
}
