using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Headroom.Cpu;

/// <summary>
/// exp and small reductions in 1, 8 and 16 lanes. The three exp versions perform the same operations in the same order,
/// so an element's value does not depend on whether it fell into a vector or into the tail.
/// </summary>
internal static unsafe class VectorMath
{
    private const float Log2E = 1.44269504f, Magic = 12582912f, Ln2Hi = 0.693359375f, Ln2Lo = -2.12194440e-4f;
    private const float C0 = 1.9875691500e-4f, C1 = 1.3981999507e-3f, C2 = 8.3334519073e-3f;
    private const float C3 = 4.1665795894e-2f, C4 = 1.6666665459e-1f, C5 = 5.0000001201e-1f;
    /// <summary>Below this exp is 0; above <see cref="High"/> it stays at exp(High).</summary>
    public const float Low = -87f, High = 88f;
    private const int MagicBits = 0x4B400000 - 127;

    /// <summary>exp(x): 0 below -87, saturated above 88, NaN through.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Exp(float x)
    {
        float c = x < Low ? Low : x;
        c = c > High ? High : c;
        float t = MathF.FusedMultiplyAdd(c, Log2E, Magic);
        float n = t - Magic;
        float r = MathF.FusedMultiplyAdd(n, -Ln2Hi, c);
        r = MathF.FusedMultiplyAdd(n, -Ln2Lo, r);
        float p = MathF.FusedMultiplyAdd(C0, r, C1);
        p = MathF.FusedMultiplyAdd(p, r, C2);
        p = MathF.FusedMultiplyAdd(p, r, C3);
        p = MathF.FusedMultiplyAdd(p, r, C4);
        p = MathF.FusedMultiplyAdd(p, r, C5);
        p = MathF.FusedMultiplyAdd(p, r * r, r + 1f);
        float scale = BitConverter.Int32BitsToSingle((BitConverter.SingleToInt32Bits(t) - MagicBits) << 23);
        return x < Low ? 0f : p * scale;
    }

    /// <inheritdoc cref="Exp(float)"/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Exp(Vector256<float> x)
    {
        // The native forms return the second operand when either is NaN.
        var c = Vector256.MinNative(Vector256.Create(High), Vector256.MaxNative(Vector256.Create(Low), x));
        var t = Vector256.FusedMultiplyAdd(c, Vector256.Create(Log2E), Vector256.Create(Magic));
        var n = t - Vector256.Create(Magic);
        var r = Vector256.FusedMultiplyAdd(n, Vector256.Create(-Ln2Hi), c);
        r = Vector256.FusedMultiplyAdd(n, Vector256.Create(-Ln2Lo), r);
        var p = Vector256.FusedMultiplyAdd(Vector256.Create(C0), r, Vector256.Create(C1));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(C2));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(C3));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(C4));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(C5));
        p = Vector256.FusedMultiplyAdd(p, r * r, r + Vector256.Create(1f));
        var scale = ((t.AsInt32() - Vector256.Create(MagicBits)) << 23).AsSingle();
        return Vector256.AndNot(p * scale, Vector256.LessThan(x, Vector256.Create(Low)));
    }

    /// <inheritdoc cref="Exp(float)"/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Exp(Vector512<float> x)
    {
        var c = Vector512.MinNative(Vector512.Create(High), Vector512.MaxNative(Vector512.Create(Low), x));
        var t = Vector512.FusedMultiplyAdd(c, Vector512.Create(Log2E), Vector512.Create(Magic));
        var n = t - Vector512.Create(Magic);
        var r = Vector512.FusedMultiplyAdd(n, Vector512.Create(-Ln2Hi), c);
        r = Vector512.FusedMultiplyAdd(n, Vector512.Create(-Ln2Lo), r);
        var p = Vector512.FusedMultiplyAdd(Vector512.Create(C0), r, Vector512.Create(C1));
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(C2));
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(C3));
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(C4));
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(C5));
        p = Vector512.FusedMultiplyAdd(p, r * r, r + Vector512.Create(1f));
        var scale = ((t.AsInt32() - Vector512.Create(MagicBits)) << 23).AsSingle();
        return Vector512.AndNot(p * scale, Vector512.LessThan(x, Vector512.Create(Low)));
    }

    /// <summary>Sum of a[i] * b[i], in an order that depends on n only.</summary>
    public static float Dot(float* a, float* b, int n)
    {
        Vector256<float> s0 = default, s1 = default, s2 = default, s3 = default;
        int i = 0;
        for (; i <= n - 32; i += 32)
        {
            s0 = Vector256.FusedMultiplyAdd(Vector256.Load(a + i), Vector256.Load(b + i), s0);
            s1 = Vector256.FusedMultiplyAdd(Vector256.Load(a + i + 8), Vector256.Load(b + i + 8), s1);
            s2 = Vector256.FusedMultiplyAdd(Vector256.Load(a + i + 16), Vector256.Load(b + i + 16), s2);
            s3 = Vector256.FusedMultiplyAdd(Vector256.Load(a + i + 24), Vector256.Load(b + i + 24), s3);
        }
        for (; i <= n - 8; i += 8) s0 = Vector256.FusedMultiplyAdd(Vector256.Load(a + i), Vector256.Load(b + i), s0);
        float sum = Vector256.Sum((s0 + s1) + (s2 + s3));
        for (; i < n; i++) sum = MathF.FusedMultiplyAdd(a[i], b[i], sum);
        return sum;
    }

    /// <summary>Scalar twin of <see cref="Dot"/>.</summary>
    public static float DotScalar(float* a, float* b, int n)
    {
        float sum = 0;
        for (int i = 0; i < n; i++) sum += a[i] * b[i];
        return sum;
    }

    /// <summary>y += s * x.</summary>
    public static void Axpy(float s, float* x, float* y, int n)
    {
        int i = 0;
        for (; i <= n - 8; i += 8)
            Vector256.Store(
                Vector256.FusedMultiplyAdd(Vector256.Create(s), Vector256.Load(x + i), Vector256.Load(y + i)), y + i);
        for (; i < n; i++) y[i] = MathF.FusedMultiplyAdd(s, x[i], y[i]);
    }
}
