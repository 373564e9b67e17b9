using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>
/// SHA-256 of base weights, computed once. What is remembered is found by a fingerprint: path, size, time of the last change and the first
/// 64 KiB (a header) of every file. Files that changed in the last two seconds are not remembered, because a second change could leave the same time.
/// </summary>
public sealed class BaseHashes(string folder, long minimumBytes)
{
    /// <summary>Below this a hash is made faster than it is worth remembering.</summary>
    private const long Worthwhile = 64 << 20;
    private static readonly TimeSpan Racy = TimeSpan.FromSeconds(2);

    /// <summary>In the user's cache folder, for files of 64 MiB in all and more.</summary>
    public static BaseHashes Default => new(Path.Combine(HeadroomCache.Folder, "hashes"), Worthwhile);

    /// <summary>Lower-case hex SHA-256 of one file's content, or of the hashes of several in order.</summary>
    public string Of(IReadOnlyList<string> files)
    {
        if (Known(files) is { } known) return known;
        string before = Fingerprint(files);
        string hash = Compute(files);
        if (Fingerprint(files) == before) Remember(files, hash);
        return hash;
    }

    /// <summary>The remembered hash, or null.</summary>
    public string? Known(IReadOnlyList<string> files)
    {
        try
        {
            string path = Path.Combine(folder, Fingerprint(files));
            return File.Exists(path) && File.ReadAllText(path).Trim() is { Length: 64 } hash && hash.All(char.IsAsciiHexDigitLower) ? hash : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Remembers a hash; a cache that cannot be written is no fault.</summary>
    public void Remember(IReadOnlyList<string> files, string hash)
    {
        try
        {
            if (files.Sum(f => Target(f).Length) < minimumBytes || files.Any(f => DateTime.UtcNow - Target(f).LastWriteTimeUtc < Racy)) return;
            Directory.CreateDirectory(folder);
            AtomicFile.WriteText(Path.Combine(folder, Fingerprint(files)), hash);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or HeadroomException)
        {
        }
    }

    /// <summary>
    /// The hash by reading everything; the files side by side, on threads of lower priority (see <see cref="LowPriority"/>): the weights are usually
    /// loaded at the same time, and where processors are few it waits until they are.
    /// </summary>
    public static string Compute(IReadOnlyList<string> files)
    {
        var hashes = new byte[files.Count][];
        LowPriority.Run(files.Count, i =>
        {
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            using var file = new FileStream(files[i], FileMode.Open, FileAccess.Read, FileShare.Read, 1, FileOptions.SequentialScan);
            var buffer = new byte[1 << 20];
            for (int n; (n = file.Read(buffer)) > 0; LowPriority.Step()) hash.AppendData(buffer, 0, n);
            hashes[i] = hash.GetHashAndReset();
        });
        return Convert.ToHexStringLower(hashes.Length == 1 ? hashes[0] : SHA256.HashData([.. hashes.SelectMany(h => h)]));
    }

    private static FileInfo Target(string file)
    {
        var info = new FileInfo(Path.GetFullPath(file));
        return info.ResolveLinkTarget(returnFinalTarget: true) as FileInfo ?? info; // a snapshot of the hub cache holds links
    }

    private static string Fingerprint(IReadOnlyList<string> files)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var head = new byte[1 << 16];
        foreach (string f in files)
        {
            var target = Target(f);
            using var file = target.OpenRead();
            int n = file.ReadAtLeast(head, head.Length, throwOnEndOfStream: false);
            hash.AppendData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{target.FullName}\0{target.Length}\0{target.LastWriteTimeUtc.Ticks}\0{n}\0")));
            hash.AppendData(head, 0, n);
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
