using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Headroom.Training.Tasks;

namespace Headroom.Training.Data;

/// <summary>
/// SHA-256 over the rows of a split as they are trained or scored: token ids with what the task knows of them beside
/// (where labels start, which label word it is), and before them the ids that all rows share. A file that was moved,
/// renamed or written in another form is the same; other labels, texts, templates, tokenizers and orders are not.
/// </summary>
internal static class RowsHash
{
    /// <summary>Lower-case hex; "" for no rows.</summary>
    /// <param name="rows">The rows.</param>
    /// <param name="shared">Ids that all rows share: <see cref="ITask.SharedIds"/>.</param>
    public static string Compute(IRowSource rows, IReadOnlyList<int[]> shared)
    {
        if (rows.Count == 0) return "";
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (int[] ids in shared) Append(sha, ids, [ids.Length, 0]);
        for (int i = 0; i < rows.Count; i++) Append(sha, rows[i].Ids, rows[i].Marks);
        return Convert.ToHexStringLower(sha.GetHashAndReset());
    }

    private static void Append(IncrementalHash sha, int[] ids, int[] marks)
    {
        Span<byte> word = stackalloc byte[sizeof(int)];
        foreach (int value in marks.Prepend(ids.Length))
        {
            BinaryPrimitives.WriteInt32LittleEndian(word, value);
            sha.AppendData(word);
        }
        sha.AppendData(MemoryMarshal.AsBytes(ids.AsSpan()));
    }
}
