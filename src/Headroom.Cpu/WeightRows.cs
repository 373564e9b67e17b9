using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>Pieces of rows of a weight as float32, whatever its storage; the products call it panel by panel, so no full-precision copy exists.</summary>
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
                Bf16((ushort*)w.Data.Address + at, count, dst);
                break;
            case WeightStorage.F16:
                Half* h = (Half*)w.Data.Address + at;
                for (int i = 0; i < count; i++) dst[i] = (float)h[i];
                break;
            case WeightStorage.Int8:
                float scale = w.Absmax.F[row] / 127f;
                sbyte* q = (sbyte*)w.Data.Address + at;
                for (int i = 0; i < count; i++) dst[i] = q[i] * scale;
                break;
            default:
                Nf4(w, at, count, dst);
                break;
        }
    }

    private static void Bf16(ushort* src, int count, float* dst)
    {
        int i = 0;
        if (Avx512F.IsSupported)
            for (; i + 16 <= count; i += 16)
                (Avx512F.ConvertToVector512Int32(Vector256.Load(src + i)) << 16).AsSingle().Store(dst + i);
        for (; i < count; i++) dst[i] = BitConverter.UInt32BitsToSingle((uint)src[i] << 16);
    }

    /// <summary>absmax of a block: stored, or map[code] * nested_absmax + offset in two roundings (specs: bitsandbytes).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Absmax(in LinearWeight w, long block) => w.Storage == WeightStorage.NF4
        ? w.Absmax.F[block]
        : Nf4Tables.Dynamic[w.Absmax.B[block]] * w.NestedAbsmax.F[block >> 8] + w.Offset.F[0];

    private static void Nf4(in LinearWeight w, long at, int count, float* dst)
    {
        byte* codes = w.Data.B;
        int size = w.BlockSize;
        while (count > 0)
        {
            long block = at / size;
            int n = (int)Math.Min(count, (block + 1) * size - at);
            float absmax = Absmax(w, block);
            int i = 0;
            if ((at & 1) == 0 && Avx512F.IsSupported)
            {
                var table = Vector512.Load(Nf4Tables.Code);
                var duplicate = Vector128.Create((byte)0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
                var shift = Vector512.Create(4u, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0);
                var low = Vector512.Create(15u);
                var scale = Vector512.Create(absmax);
                byte* src = codes + (at >> 1);
                for (; i + 16 <= n; i += 16, src += 8)
                {
                    var pairs = Ssse3.Shuffle(Vector128.CreateScalarUnsafe(*(ulong*)src).AsByte(), duplicate);
                    var code = Avx512F.ShiftRightLogicalVariable(Avx512F.ConvertToVector512UInt32(pairs), shift) & low;
                    (Avx512F.PermuteVar16x32(table, code.AsInt32()) * scale).Store(dst + i);
                }
            }
            for (; i < n; i++)
            {
                long e = at + i;
                int code = (e & 1) == 0 ? codes[e >> 1] >> 4 : codes[e >> 1] & 15;
                dst[i] = Nf4Tables.Code[code] * absmax;
            }
            at += n;
            dst += n;
            count -= n;
        }
    }
}
