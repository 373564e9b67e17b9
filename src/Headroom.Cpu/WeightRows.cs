using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Pieces of rows of a weight as float32, whatever its storage; the products call it panel by panel, so no
/// full-precision copy exists.
/// </summary>
internal static unsafe class WeightRows
{
    /// <summary>dst = w[row, column .. column + count).</summary>
    public static void Read(in LinearWeight w, int row, int column, int count, float* dst)
    {
        long at = (long)row * w.In + column;
        switch (w.Storage)
        {
            case WeightStorage.F32:
                Unsafe.CopyBlockUnaligned(dst, w.Data.F + at, (uint)count * 4);
                break;
            case WeightStorage.BF16:
                EmbeddingKernels.WidenBF16((ushort*)w.Data.Address + at, dst, count);
                break;
            case WeightStorage.F16:
                EmbeddingKernels.WidenF16((Half*)w.Data.Address + at, dst, count);
                break;
            case WeightStorage.Int8:
                EmbeddingKernels.WidenInt8((sbyte*)w.Data.Address + at, w.Absmax.F[row] / 127f, dst, count);
                break;
            case WeightStorage.Gguf:
                Gguf(w, row, column, count, dst);
                break;
            default:
                Nf4(w, at, count, dst);
                break;
        }
    }

    // A piece that begins or ends inside a block goes through a copy of the block's values; products ask for pieces at
    // multiples of 256 almost always.
    private static void Gguf(in LinearWeight w, int row, int column, int count, float* dst)
    {
        var (values, bytes) = w.BlockType.Block();
        byte* src = w.Data.B + row * w.BlockType.RowBytes(w.In) + (long)(column / values) * bytes;
        float* block = stackalloc float[GgmlTypes.LargestBlock];
        for (int inside = column % values; count > 0; inside = 0)
        {
            int whole = inside == 0 ? count / values * values : 0;
            if (whole > 0)
            {
                GgmlBlocks.Dequantize(w.BlockType, src, dst, whole);
                src += (long)(whole / values) * bytes;
                dst += whole;
                count -= whole;
                continue;
            }
            int n = Math.Min(count, values - inside);
            GgmlBlocks.Dequantize(w.BlockType, src, block, values);
            Unsafe.CopyBlockUnaligned(dst, block + inside, (uint)n * 4);
            src += bytes;
            dst += n;
            count -= n;
        }
    }

    /// <summary>
    /// absmax of a block: stored, or map[code] * nested_absmax + offset in two roundings (specs: bitsandbytes).
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Absmax(in LinearWeight w, long block) => w.Storage == WeightStorage.NF4
        ? w.Absmax.F[block]
        : Nf4Tables.Dynamic[w.Absmax.B[block]] * w.NestedAbsmax.F[block >> 8] + w.Offset.F[0];

    private static void Nf4(in LinearWeight w, long at, int count, float* dst)
    {
        int size = w.BlockSize;
        while (count > 0)
        {
            long block = at / size;
            int n = (int)Math.Min(count, (block + 1) * size - at);
            float absmax = Absmax(w, block);
            // Pieces that start between two codes of a byte are rare: an odd number of columns.
            if ((at & 1) != 0) Nf4Scalar(w.Data.B, at, n, absmax, dst);
            else if (Avx512F.IsSupported) Nf4Vector512(w.Data.B, at, n, absmax, dst);
            else if (Avx2.IsSupported) Nf4Vector256(w.Data.B, at, n, absmax, dst);
            else Nf4Scalar(w.Data.B, at, n, absmax, dst);
            at += n;
            dst += n;
            count -= n;
        }
    }

    /// <summary>
    /// Scalar twin: <paramref name="n"/> codes from element <paramref name="at"/> on, high nibble first, times
    /// <paramref name="absmax"/>.
    /// </summary>
    public static void Nf4Scalar(byte* codes, long at, int n, float absmax, float* dst)
    {
        for (int i = 0; i < n; i++)
        {
            long e = at + i;
            int code = (e & 1) == 0 ? codes[e >> 1] >> 4 : codes[e >> 1] & 15;
            dst[i] = Nf4Tables.Code[code] * absmax;
        }
    }

    /// <summary>16 codes at a time; <paramref name="at"/> is even.</summary>
    public static void Nf4Vector512(byte* codes, long at, int n, float absmax, float* dst)
    {
        var table = Vector512.Load(Nf4Tables.Code);
        var duplicate = Vector128.Create((byte)0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        var shift = Vector512.Create(4u, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0);
        var low = Vector512.Create(15u);
        var scale = Vector512.Create(absmax);
        byte* src = codes + (at >> 1);
        int i = 0;
        for (; i + 16 <= n; i += 16, src += 8)
        {
            var pairs = Ssse3.Shuffle(Vector128.CreateScalarUnsafe(*(ulong*)src).AsByte(), duplicate);
            var code = Avx512F.ShiftRightLogicalVariable(Avx512F.ConvertToVector512UInt32(pairs), shift) & low;
            (Avx512F.PermuteVar16x32(table, code.AsInt32()) * scale).Store(dst + i);
        }
        Nf4Scalar(codes, at + i, n - i, absmax, dst + i);
    }

    /// <summary>
    /// 8 codes at a time: the table in two halves, chosen by the code's highest bit; <paramref name="at"/> is even.
    /// </summary>
    public static void Nf4Vector256(byte* codes, long at, int n, float absmax, float* dst)
    {
        Vector256<float> lower = Vector256.Load(Nf4Tables.Code),
            upper = Vector256.Load(Nf4Tables.Code + 8),
            scale = Vector256.Create(absmax);
        var shift = Vector256.Create(4u, 0, 12, 8, 20, 16, 28, 24);
        byte* src = codes + (at >> 1);
        int i = 0;
        for (; i + 8 <= n; i += 8, src += 4)
        {
            // the three lowest bits index, the fourth selects
            var code = Avx2.ShiftRightLogicalVariable(Vector256.Create(*(uint*)src), shift);
            var value = Avx.BlendVariable(
                Avx2.PermuteVar8x32(lower, code.AsInt32()), Avx2.PermuteVar8x32(upper, code.AsInt32()),
                (code << 28).AsSingle());
            (value * scale).Store(dst + i);
        }
        Nf4Scalar(codes, at + i, n - i, absmax, dst + i);
    }
}
