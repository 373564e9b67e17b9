using System.Numerics;
using System.Runtime.InteropServices;

namespace Headroom.Core;

/// <summary>Whether numbers are numbers.</summary>
internal static class Finite
{
    /// <summary>
    /// True when none of the values is NaN or infinite: x - x is 0 for every other float32. One pass, with vectors.
    /// </summary>
    public static bool All(ReadOnlySpan<float> values)
    {
        var sum = Vector<float>.Zero;
        var vectors = MemoryMarshal.Cast<float, Vector<float>>(values);
        foreach (var v in vectors) sum += v - v;
        float rest = Vector.Sum(sum);
        foreach (float v in values[(vectors.Length * Vector<float>.Count)..]) rest += v - v;
        return rest == 0;
    }
}
