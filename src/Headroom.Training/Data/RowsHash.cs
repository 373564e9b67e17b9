using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Headroom.Training;

/// <summary>
/// SHA-256 over the rows of a split as they are trained or scored: token ids, where the labels start and which label word it is, with the ids of all label words
/// before them. A file that was moved, renamed or written in another form is the same; other labels, texts, templates, tokenizers and orders are not.
/// </summary>
public static class RowsHash
{
    /// <summary>Lower-case hex; "" for no rows.</summary>
    public static string Of(IRowSource rows, IReadOnlyList<int[]> answers)
    {
        if (rows.Count == 0) return "";
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (int[] answer in answers) Append(sha, answer, answer.Length, 0);
        for (int i = 0; i < rows.Count; i++)
        {
            var row = rows[i];
            Append(sha, row.Ids, row.AnswerStart, row.LabelIndex);
        }
        return Convert.ToHexStringLower(sha.GetHashAndReset());
    }

    private static void Append(IncrementalHash sha, int[] ids, int start, int label)
    {
        Span<byte> head = stackalloc byte[12];
        BinaryPrimitives.WriteInt32LittleEndian(head, ids.Length);
        BinaryPrimitives.WriteInt32LittleEndian(head[4..], start);
        BinaryPrimitives.WriteInt32LittleEndian(head[8..], label);
        sha.AppendData(head);
        sha.AppendData(MemoryMarshal.AsBytes(ids.AsSpan()));
    }
}
