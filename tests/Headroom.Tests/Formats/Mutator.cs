using System.Buffers.Binary;
using System.Text;
using Headroom.Core;

namespace Headroom.Tests.Formats;

/// <summary>
/// Seeded damage: bit flips, truncation, numbers in fields, splices. Case i of a seed is always the same.
/// </summary>
internal static class Mutator
{
    private static readonly ulong[] Numbers =
    [
        0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000,
        0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 1000, 1 << 20, 1 << 28];

    private static readonly string[] Words =
    [
        "-1", "0", "1e999", "-1e-999", "2147483648", "9223372036854775808", "18446744073709551616",
        "99999999999999999999999", "null", "true", "{", "}", "[", "]", "\"", ",", ":", "[[[[[[[[", "{\"a\":", "\\u0000",
        "\\ud800", "\\", "1.5", "\"\"", "(", "(?", "*", "+", "{9999999}"];

    /// <summary>
    /// A damaged copy; <paramref name="head"/> bytes of the front get most of the damage; text formats also get words
    /// of JSON.
    /// </summary>
    public static byte[] Mutate(byte[] file, int head, bool text, PhiloxRandom random)
    {
        var data = new List<byte>(file);
        int rounds = 1 + random.Next(4);
        Span<byte> field = stackalloc byte[8];
        for (int r = 0; r < rounds && data.Count > 8; r++)
        {
            int span = random.Next(8) == 0 ? data.Count : Math.Min(head, data.Count), at = random.Next(span);
            switch (random.Next(text ? 8 : 6))
            {
                case 0: data[at] ^= (byte)(1 << random.Next(8)); break;
                case 1: data[at] = (byte)random.NextUInt(); break;
                case 2: data.RemoveRange(at, data.Count - at); break;
                case 3:
                    ulong n =
                        random.Next(4) == 0
                            ? (ulong)(data.Count + random.Next(9) - 4)
                            : Numbers[random.Next(Numbers.Length)];
                    BinaryPrimitives.WriteUInt64LittleEndian(field, n);
                    for (int i = 0, size = random.Next(2) == 0 ? 4 : 8; i < size && at + i < data.Count; i++)
                        data[at + i] = field[i];
                    break;
                case 4:
                    int length = 1 + random.Next(Math.Min(64, data.Count - at)), to = random.Next(data.Count);
                    data.InsertRange(to, data.GetRange(at, length));
                    break;
                case 5: data.RemoveRange(at, Math.Min(1 + random.Next(16), data.Count - at)); break;
                default:
                    byte[] word = Encoding.ASCII.GetBytes(Words[random.Next(Words.Length)]);
                    if (random.Next(2) == 0) data.RemoveRange(at, Math.Min(word.Length, data.Count - at));
                    data.InsertRange(Math.Min(at, data.Count), word);
                    break;
            }
        }
        return [.. data];
    }
}
