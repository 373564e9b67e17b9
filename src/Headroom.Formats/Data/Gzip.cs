using System.Buffers.Binary;

namespace Headroom.Formats.Data;

/// <summary>
/// Whether a gzip file was whole. The platform's stream takes a file that breaks off for a shorter one; RFC 1952 ends
/// every member with the number of its bytes (modulo 2^32), which a broken file does not match.
/// </summary>
internal static class Gzip
{
    private const int TrailerBytes = 8, SmallestMember = 18;

    /// <summary>
    /// True when the members' sizes add up to <paramref name="total"/>, the bytes that came out. One member is the rule
    /// and needs four bytes of the file.
    /// </summary>
    public static bool IsWhole(string path, long total)
    {
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
        if (file.Length < SmallestMember) return file.Length == 0 && total == 0;
        Span<byte> size = stackalloc byte[4];
        file.Seek(-4, SeekOrigin.End);
        file.ReadExactly(size);
        uint sum = BinaryPrimitives.ReadUInt32LittleEndian(size);
        return sum == (uint)total || Members(path, sum) == (uint)total;
    }

    /// <summary>
    /// Adds the sizes of the members before the last; a member begins with the magic, deflate, no reserved flag and a
    /// known compression mark.
    /// </summary>
    private static uint Members(string path, uint last)
    {
        byte[] all = File.ReadAllBytes(path);
        ReadOnlySpan<byte> magic = [0x1F, 0x8B, 8];
        uint sum = last;
        for (int at = SmallestMember; at + SmallestMember <= all.Length; at++)
        {
            int next = all.AsSpan(at).IndexOf(magic);
            if (next < 0) break;
            at += next;
            if (at + SmallestMember <= all.Length && all[at + 3] < 0x20 && (all[at + 8] is 0 or 2 or 4))
                sum += BinaryPrimitives.ReadUInt32LittleEndian(all.AsSpan(at - TrailerBytes + 4));
        }
        return sum;
    }
}
