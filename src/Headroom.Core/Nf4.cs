namespace Headroom.Core;

/// <summary>
/// NF4's code table and the signed dynamic 8-bit map of double quantization (bitsandbytes <c>functional.py</c>).
/// </summary>
internal static class Nf4
{
    private static readonly uint[] CodeBits =
    [
        0xBF800000, 0xBF3239B1, 0xBF066B30, 0xBECA32A0, 0xBE91A24D, 0xBE3D353F, 0xBDBA7871, 0x00000000,
        0x3DA2FAFF, 0x3E24CAE3, 0x3E7C04DD, 0x3EAD033A, 0x3EE1A4B8, 0x3F1007AB, 0x3F3913B3, 0x3F800000,
    ];

    /// <summary>The 16 values; hard-coded bit patterns, as in bitsandbytes.</summary>
    public static float[] Codes { get; } = [.. CodeBits.Select(BitConverter.UInt32BitsToSingle)];

    /// <summary>
    /// Builds the map: for i = 0..6, midpoints of 2^i + 1 points on a line from 0.1 to 1, times 10^(i - 6), both signs;
    /// 0 and 1.
    /// </summary>
    public static float[] DynamicMap()
    {
        var values = new List<float>();
        for (int i = 0; i <= 6; i++)
        {
            int n = (1 << i) + 1;
            float step = (1f - 0.1f) / (n - 1);
            var line = new float[n];
            for (int k = 0; k < n; k++)
                line[k] =
                    k < n / 2 ? MathF.FusedMultiplyAdd(step, k, 0.1f) : MathF.FusedMultiplyAdd(-step, n - 1 - k, 1f);
            float scale = (float)Math.Pow(10, i - 6);
            for (int k = 0; k + 1 < n; k++)
            {
                float v = (line[k] + line[k + 1]) / 2 * scale;
                values.Add(v);
                values.Add(-v);
            }
        }
        values.Add(0);
        values.Add(1);
        values.Sort();
        return [.. values];
    }
}
