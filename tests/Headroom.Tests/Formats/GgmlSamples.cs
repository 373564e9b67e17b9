using System.Buffers.Binary;
using Headroom.Core;

namespace Headroom.Tests.Formats;

/// <summary>Blocks of random codes whose float16 scales are ordinary numbers.</summary>
public static class GgmlSamples
{
    /// <summary>Block types, without the plain ones.</summary>
    internal static IEnumerable<GgmlType> Quantized => Enum.GetValues<GgmlType>().Where(t => !t.IsPlain());

    internal static byte[] Random(GgmlType type, int blocks, PhiloxRandom random)
    {
        int size = type.Block().Bytes;
        var bytes = new byte[blocks * size];
        for (int i = 0; i < bytes.Length; i++) bytes[i] = (byte)random.NextUInt();
        int[] halves = type switch
        {
            GgmlType.Q4_1 or GgmlType.Q5_1 or GgmlType.Q4_K or GgmlType.Q5_K => [0, 2],
            GgmlType.Q2_K => [80, 82],
            GgmlType.Q3_K => [108],
            GgmlType.Q6_K => [208],
            _ => [0],
        };
        for (int b = 0; b < blocks; b++)
            foreach (int at in halves)
                BinaryPrimitives.WriteHalfLittleEndian(
                    bytes.AsSpan(b * size + at), (Half)(random.NextNormal() * 0.01f));
        return bytes;
    }
}
