using System.Globalization;
using System.Text;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>
/// Small text files beside a model (configurations, indexes, templates): read whole, but never more than such a file
/// can need.
/// </summary>
internal static class SideFile
{
    /// <summary>
    /// More than any configuration has: the largest known ones, of vocabularies with thousands of added tokens, hold 2
    /// MB.
    /// </summary>
    public const long Largest = 16 << 20;

    /// <summary>More than any index of shards has: 100,000 tensors take 10 MB.</summary>
    public const long LargestIndex = 256 << 20;

    /// <summary>Of a tokenizer.json or tokenizer.model, unpacked: four times the largest known.</summary>
    public const int LargestTokenizer = 256 << 20;

    /// <summary>The text of a file (UTF-8, or what its byte order mark says).</summary>
    /// <exception cref="HeadroomException">It is larger than <paramref name="most"/> bytes, or a Git LFS
    /// pointer.</exception>
    public static string ReadText(string path, long most = Largest)
    {
        RegularFile.Check(path);
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, 1);
        if (file.CanSeek && file.Length > most) throw TooLarge(path, file.Length, most);
        using var all = new MemoryStream();
        var block = new byte[1 << 16];
        for (int n; (n = file.Read(block)) > 0;)
        {
            if (all.Length + n > most) throw TooLarge(path, null, most); // a pipe, or a file that grows
            all.Write(block, 0, n);
        }
        GitLfs.Refuse(path, all.GetBuffer().AsSpan(0, (int)all.Length));
        all.Position = 0;
        using var text = new StreamReader(all, Encoding.UTF8);
        return text.ReadToEnd();
    }

    private static HeadroomException TooLarge(string path, long? bytes, long most) =>
        new(
            string.Create(
                CultureInfo.InvariantCulture,
                $"{path} has "
                    + $"{(bytes is { } n ? $"{n:N0}" : "more than " + most.ToString("N0", CultureInfo.InvariantCulture))} bytes, at most {most:N0} are read of such a file."
            ),
            "It is another file under this name; use the model's original one.");
}

/// <summary>
/// Git LFS pointers: the few lines that a clone holds in place of a large file until git lfs pull has been run (git-lfs
/// <c>docs/spec.md</c>).
/// </summary>
internal static class GitLfs
{
    private const int Longest = 1024; // "pointer files must be less than 1024 bytes"

    /// <summary>Throws when a file is a pointer.</summary>
    /// <param name="path">The file, for the message.</param>
    /// <param name="start">Its first bytes; all of them where it is small.</param>
    /// <exception cref="HeadroomException">It is one.</exception>
    public static void Refuse(string path, ReadOnlySpan<byte> start)
    {
        if (
            !start.StartsWith("version https://git-lfs.github.com/spec/"u8)
            && !start.StartsWith("version https://hawser.github.com/spec/"u8)
        )
            return;
        string? size = Encoding
            .UTF8.GetString(start[..Math.Min(start.Length, Longest)])
            .Split('\n')
            .FirstOrDefault(l => l.StartsWith("size ", StringComparison.Ordinal));
        string whole = long.TryParse(size?[5..], CultureInfo.InvariantCulture, out long bytes)
            ? string.Create(CultureInfo.InvariantCulture, $" of {bytes:N0} bytes")
            : "";
        throw new HeadroomException(
            $"{path} is a Git LFS pointer, not the file{whole} that it stands for.",
            "Run git lfs pull in the clone, or download the file itself.");
    }

    /// <summary>The same for a file that is not open yet; one that cannot be read is left to its reader.</summary>
    public static void Refuse(string path)
    {
        RegularFile.Check(path);
        Span<byte> start = stackalloc byte[Longest];
        int n;
        try
        {
            var target = File.ResolveLinkTarget(path, returnFinalTarget: true) as FileInfo ?? new FileInfo(path);
            if (target.Length is 0 or > Longest) return; // a pipe has no length, and must not be opened twice
            using var file = target.OpenRead();
            n = file.ReadAtLeast(start, Longest, throwOnEndOfStream: false);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            return;
        }
        Refuse(path, start[..n]);
    }
}
