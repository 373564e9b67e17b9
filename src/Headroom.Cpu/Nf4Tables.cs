using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// NF4's code table and thresholds and the signed dynamic 8-bit map (bitsandbytes <c>functional.py</c>), in native
/// memory for the whole process.
/// </summary>
internal static unsafe class Nf4Tables
{
    /// <summary>The 16 NF4 values; hard-coded bit patterns, as in bitsandbytes.</summary>
    public static readonly float* Code;
    /// <summary>The 255 midpoints of <see cref="Dynamic"/>.</summary>
    public static readonly float* DynamicMidpoints;
    /// <summary>The 256 values of the dynamic map, ascending.</summary>
    public static readonly float* Dynamic;
    /// <summary>
    /// Threshold i separates code i from i + 1; a value on it takes the lower code. A sixteenth, infinity, fills the
    /// register.
    /// </summary>
    public static readonly float* Thresholds;

    static Nf4Tables()
    {
        Code = Make(16);
        for (int i = 0; i < 16; i++) Code[i] = Nf4.Codes[i];
        Thresholds = Make(16);
        Thresholds[15] = float.PositiveInfinity; // nothing is above it
        for (int i = 0; i < 15; i++) Thresholds[i] = (Code[i] + Code[i + 1]) / 2;
        Dynamic = Make(256);
        float[] map = Nf4.DynamicMap();
        for (int i = 0; i < 256; i++) Dynamic[i] = map[i];
        DynamicMidpoints = Make(255);
        for (int i = 0; i < 255; i++) DynamicMidpoints[i] = (Dynamic[i] + Dynamic[i + 1]) * 0.5f;
    }

    private static float* Make(int count) => (float*)NativeMemory.AlignedAlloc((nuint)count * 4, 64);
}
