using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Dropout multipliers (0 or 1 / (1 - p)) regenerated from Philox: a function of (index, site, step, seed) alone.
/// </summary>
internal static unsafe class DropoutMask
{
    /// <summary>x[i] *= multiplier of element first + i.</summary>
    public static void Apply(in Dropout d, long first, int count, float* x)
    {
        int i = 0;
        while (i < count && ((first + i) & 7) != 0) i = Scalar(d, first, i, count, x);
        if (Avx512F.IsSupported)
            for (; i + 128 <= count; i += 128) Block512(d, (ulong)(first + i) >> 3, x + i);
        if (Avx2.IsSupported)
            for (; i + 64 <= count; i += 64) Block256(d, (ulong)(first + i) >> 3, x + i);
        while (i < count) i = Scalar(d, first, i, count, x);
    }

    /// <summary>Scalar twin of <see cref="Apply"/>.</summary>
    public static void ApplyScalar(in Dropout d, long first, int count, float* x)
    {
        for (int i = 0; i < count;) i = Scalar(d, first, i, count, x);
    }

    /// <summary>Finishes the block of eight that element i is in; returns the next i.</summary>
    private static int Scalar(in Dropout d, long first, int i, int count, float* x)
    {
        ulong block = (ulong)(first + i) >> 3;
        var r = Philox.Next((uint)block, (uint)(block >> 32), d.Site, d.Step, (uint)d.Seed, (uint)(d.Seed >> 32));
        uint threshold = d.Threshold;
        float keep = d.Keep;
        for (; i < count && (ulong)(first + i) >> 3 == block; i++)
        {
            uint word = ((first + i) >> 1 & 3) switch { 0 => r.X0, 1 => r.X1, 2 => r.X2, _ => r.X3 };
            x[i] *= (word >> (int)((first + i) & 1) * 16 & 0x7FFF) >= threshold ? keep : 0f;
        }
        return i;
    }

    /// <summary>
    /// 16 counters at a time, in an order that makes the 4 x 16 transposition of the outputs come out contiguous.
    /// </summary>
    public static void Block512(in Dropout d, ulong block, float* x)
    {
        if ((uint)block > uint.MaxValue - 16)
        {
            ApplyScalar(d, (long)block * 8, 128, x);
            return;
        }
        var c0 =
            Vector512.Create((uint)block) + Vector512.Create(0u, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        var c1 = Vector512.Create((uint)(block >> 32));
        var c2 = Vector512.Create(d.Site);
        var c3 = Vector512.Create(d.Step);
        uint k0 = (uint)d.Seed, k1 = (uint)(d.Seed >> 32);
        Vector512<uint> m0 = Vector512.Create(Philox.M0), m1 = Vector512.Create(Philox.M1);
        for (int round = 0; round < 10; round++)
        {
            Wide(c0, m0, out var h0, out var l0);
            Wide(c2, m1, out var h1, out var l1);
            c0 = h1 ^ c1 ^ Vector512.Create(k0);
            c1 = l1;
            c2 = h0 ^ c3 ^ Vector512.Create(k1);
            c3 = l0;
            k0 += Philox.W0;
            k1 += Philox.W1;
        }
        Vector512<ulong> a = Avx512F.UnpackLow(c0, c1).AsUInt64(), b = Avx512F.UnpackLow(c2, c3).AsUInt64();
        Vector512<ulong> e = Avx512F.UnpackHigh(c0, c1).AsUInt64(), f = Avx512F.UnpackHigh(c2, c3).AsUInt64();
        uint threshold = d.Threshold;
        float keep = d.Keep;
        Store(Avx512F.UnpackLow(a, b).AsUInt32(), threshold, keep, x);
        Store(Avx512F.UnpackHigh(a, b).AsUInt32(), threshold, keep, x + 32);
        Store(Avx512F.UnpackLow(e, f).AsUInt32(), threshold, keep, x + 64);
        Store(Avx512F.UnpackHigh(e, f).AsUInt32(), threshold, keep, x + 96);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(Vector512<uint> words, uint threshold, float keep, float* x)
    {
        Vector512<uint> least = Vector512.Create(threshold), low, high;
        (low, high) = Vector512.Widen(words.AsUInt16() & Vector512.Create((ushort)0x7FFF));
        (Vector512.Load(x) * (Vector512.GreaterThanOrEqual(low, least).AsSingle() & Vector512.Create(keep))).Store(x);
        (
            Vector512.Load(x + 16) * (Vector512.GreaterThanOrEqual(high, least).AsSingle() & Vector512.Create(keep))
        ).Store(x + 16);
    }

    // High and low halves of the 32 x 32-bit products, from the 64-bit products of the even and of the odd lanes.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Wide(Vector512<uint> x, Vector512<uint> m, out Vector512<uint> high, out Vector512<uint> low)
    {
        var even = Avx512F.Multiply(x, m);
        var odd = Avx512F.Multiply((x.AsUInt64() >> 32).AsUInt32(), m);
        low = x * m;
        high = ((even >> 32) | (odd & Vector512.Create(0xFFFFFFFF00000000ul))).AsUInt32();
    }

    /// <summary>
    /// 8 counters at a time, in an order that makes the 4 x 8 transposition of the outputs come out contiguous.
    /// </summary>
    public static void Block256(in Dropout d, ulong block, float* x)
    {
        if ((uint)block > uint.MaxValue - 8)
        {
            ApplyScalar(d, (long)block * 8, 64, x);
            return;
        }
        var c0 = Vector256.Create((uint)block) + Vector256.Create(0u, 2, 4, 6, 1, 3, 5, 7);
        var c1 = Vector256.Create((uint)(block >> 32));
        var c2 = Vector256.Create(d.Site);
        var c3 = Vector256.Create(d.Step);
        uint k0 = (uint)d.Seed, k1 = (uint)(d.Seed >> 32);
        Vector256<uint> m0 = Vector256.Create(Philox.M0), m1 = Vector256.Create(Philox.M1);
        for (int round = 0; round < 10; round++)
        {
            Wide(c0, m0, out var h0, out var l0);
            Wide(c2, m1, out var h1, out var l1);
            c0 = h1 ^ c1 ^ Vector256.Create(k0);
            c1 = l1;
            c2 = h0 ^ c3 ^ Vector256.Create(k1);
            c3 = l0;
            k0 += Philox.W0;
            k1 += Philox.W1;
        }
        Vector256<ulong> a = Avx2.UnpackLow(c0, c1).AsUInt64(), b = Avx2.UnpackLow(c2, c3).AsUInt64();
        Vector256<ulong> e = Avx2.UnpackHigh(c0, c1).AsUInt64(), f = Avx2.UnpackHigh(c2, c3).AsUInt64();
        uint threshold = d.Threshold;
        float keep = d.Keep;
        Store(Avx2.UnpackLow(a, b).AsUInt32(), threshold, keep, x);
        Store(Avx2.UnpackHigh(a, b).AsUInt32(), threshold, keep, x + 16);
        Store(Avx2.UnpackLow(e, f).AsUInt32(), threshold, keep, x + 32);
        Store(Avx2.UnpackHigh(e, f).AsUInt32(), threshold, keep, x + 48);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(Vector256<uint> words, uint threshold, float keep, float* x)
    {
        Vector256<uint> least = Vector256.Create(threshold), low, high;
        (low, high) = Vector256.Widen(words.AsUInt16() & Vector256.Create((ushort)0x7FFF));
        (Vector256.Load(x) * (Vector256.GreaterThanOrEqual(low, least).AsSingle() & Vector256.Create(keep))).Store(x);
        (Vector256.Load(x + 8) * (Vector256.GreaterThanOrEqual(high, least).AsSingle() & Vector256.Create(keep))).Store(
            x + 8);
    }

    // High and low halves of the 32 x 32-bit products, from the 64-bit products of the even and of the odd lanes.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Wide(Vector256<uint> x, Vector256<uint> m, out Vector256<uint> high, out Vector256<uint> low)
    {
        var even = Avx2.Multiply(x, m);
        var odd = Avx2.Multiply((x.AsUInt64() >> 32).AsUInt32(), m);
        low = x * m;
        high = ((even >> 32) | (odd & Vector256.Create(0xFFFFFFFF00000000ul))).AsUInt32();
    }
}
