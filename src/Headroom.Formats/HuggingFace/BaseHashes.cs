using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Microsoft.Win32.SafeHandles;

namespace Headroom.Formats.HuggingFace;

/// <summary>
/// SHA-256 of base weights, computed once. What is remembered is found by a fingerprint of every file: path, length,
/// modification time, device, inode, the time of the last change of any kind (ctime, which no program can set), the
/// first 64 KiB (a header) and 64 blocks of 4 KiB all over the rest.
/// <para>
/// The rule: a hash is taken from memory only where another content must show in the fingerprint, else it is computed
/// again. So nothing is remembered (and nothing found) where the file system is not known to keep ctime itself and
/// exactly: network file systems, whose times come from another clock and late, FUSE, FAT, and
/// systems without ctime. And nothing is remembered of a file that changed less than the clock's grain before the
/// hashing began (<see cref="Stamp"/>), or between that and its end: a second change could leave the same time. The
/// grain is taken for 2 s, or for 0.1 s where the time's digits show a clock that is finer than a millisecond. What
/// this cannot see is a change while the system's clock is set back to the same nanosecond, outside of the blocks that
/// are looked at.
/// </para>
/// </summary>
internal sealed class BaseHashes(string folder, long minimumBytes)
{
    /// <summary>Below this a hash is made faster than it is worth remembering.</summary>
    private const long Worthwhile = 64 << 20;
    private const int Head = 1 << 16, Block = 1 << 12, Blocks = 64;
    private const long Millisecond = 1_000_000, CoarseGrain = 2_000 * Millisecond, FineGrain = 100 * Millisecond;

    // Local ones that set ctime by the kernel's clock, as DriveInfo names them.
    private static readonly HashSet<string> Exact = new(StringComparer.OrdinalIgnoreCase)
    {
        "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "jfs", "reiserfs", "tmpfs", "ramfs",
        "overlay", "overlayfs", "NTFS", "ReFS",
    };

    /// <summary>In the user's cache folder, for files of 64 MiB in all and more.</summary>
    public static BaseHashes Default => new(Path.Combine(HeadroomCache.Folder, "hashes"), Worthwhile);

    /// <summary>Lower-case hex SHA-256 of one file's content, or of the hashes of several in order.</summary>
    public string Get(IReadOnlyList<string> files)
    {
        if (Known(files) is { } known) return known;
        string? stamp = Stamp(files);
        string hash = Compute(files);
        Remember(files, hash, stamp);
        return hash;
    }

    /// <summary>The remembered hash, or null.</summary>
    public string? Known(IReadOnlyList<string> files)
    {
        try
        {
            if (Fingerprint(files) is not { } print) return null;
            string path = Path.Combine(folder, print);
            return File.Exists(path) && File.ReadAllText(path).Trim() is var hash && IsHash(hash) ? hash : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>
    /// Whether the file systems of these files say surely that a file changed; where not, nothing is remembered.
    /// </summary>
    public static bool CanTell(IReadOnlyList<string> files)
    {
        try
        {
            return files.All(f =>
            {
                using var file = File.OpenHandle(Target(f).FullName);
                return Identity(f, file) != null;
            });
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    /// <summary>
    /// What tells later whether files are still what they are now: to be taken before they are read. Null where that
    /// cannot be told: the file system is none of those that say it, or a file changed just now, so that one more
    /// change could go unseen.
    /// </summary>
    public static string? Stamp(IReadOnlyList<string> files)
    {
        try
        {
            var text = new StringBuilder();
            long now = (DateTime.UtcNow - DateTime.UnixEpoch).Ticks * 100;
            foreach (string f in files)
            {
                using var file = File.OpenHandle(Target(f).FullName);
                if (Identity(f, file) is not { } id) return null;
                // A time in the future (the clock was set back) is never old enough.
                if (now - id.ChangedNanoseconds <= (id.ChangedNanoseconds % Millisecond == 0 ? CoarseGrain : FineGrain))
                    return null;
                text.Append(Words(f, id, RandomAccess.GetLength(file)));
            }
            return text.ToString();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Remembers a hash; a cache that cannot be written is no fault.</summary>
    /// <param name="files">The files.</param>
    /// <param name="hash">Their hash.</param>
    /// <param name="stamp">Their <see cref="Stamp"/> from before they were read for the hash; what has changed since is
    /// not remembered.</param>
    public void Remember(IReadOnlyList<string> files, string hash, string? stamp)
    {
        try
        {
            if (stamp == null || files.Sum(f => Target(f).Length) < minimumBytes || Stamp(files) != stamp) return;
            if (Fingerprint(files) is not { } print) return;
            Directory.CreateDirectory(folder);
            AtomicFile.WriteText(Path.Combine(folder, print), hash);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or HeadroomException)
        {
        }
    }

    /// <summary>Whether a name, and a text, are those of a remembered hash: 64 lower-case hex digits.</summary>
    public static bool IsHash(string text) => text.Length == 64 && text.All(char.IsAsciiHexDigitLower);

    /// <summary>
    /// The hash by reading everything; the files side by side, on threads of lower priority (see
    /// <see cref="LowPriority"/>): the weights are usually loaded at the same time, and where processors are few it
    /// waits until they are.
    /// </summary>
    public static string Compute(IReadOnlyList<string> files)
    {
        var hashes = new byte[files.Count][];
        LowPriority.Run(files.Count, i =>
        {
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            using var file = new FileStream(
                files[i], FileMode.Open, FileAccess.Read, FileShare.Read, 1, FileOptions.SequentialScan);
            var buffer = new byte[1 << 20];
            for (int n; (n = file.Read(buffer)) > 0; LowPriority.Step()) hash.AppendData(buffer, 0, n);
            hashes[i] = hash.GetHashAndReset();
        });
        return Convert.ToHexStringLower(
            hashes.Length == 1 ? hashes[0] : SHA256.HashData([.. hashes.SelectMany(h => h)]));
    }

    private static FileInfo Target(string file)
    {
        var info = new FileInfo(Path.GetFullPath(file));
        // a snapshot of the hub cache holds links
        return info.ResolveLinkTarget(returnFinalTarget: true) as FileInfo ?? info;
    }

    private static FileIdentity? Identity(string file, SafeFileHandle handle)
    {
        try
        {
            return Exact.Contains(new DriveInfo(Target(file).FullName).DriveFormat) ? FileIdentity.Read(handle) : null;
        }
        catch (Exception e) when (e is ArgumentException or IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static string Words(string file, FileIdentity id, long length)
    {
        var target = Target(file);
        return string.Create(CultureInfo.InvariantCulture,
            $"{target.FullName}\0{length}\0{target.LastWriteTimeUtc.Ticks}\0{id.Device}\0{id.InodeHigh}\0{id.Inode}\0{id.ChangedNanoseconds}\0"
        );
    }

    private static string? Fingerprint(IReadOnlyList<string> files)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var part = new byte[Head];
        foreach (string f in files)
        {
            using var file = File.OpenHandle(Target(f).FullName);
            if (Identity(f, file) is not { } id) return null;
            long length = RandomAccess.GetLength(file);
            hash.AppendData(Encoding.UTF8.GetBytes(Words(f, id, length)));
            hash.AppendData(part, 0, FileRead.Exactly(file, 0, part));
            // The last of them ends with the file.
            for (int i = 1; i <= Blocks && length > Head; i++)
            {
                long at = Head + (long)((length - Head) * ((double)i / Blocks)) - Block;
                hash.AppendData(part, 0, FileRead.Exactly(file, Math.Max(0, at), part.AsSpan(0, Block)));
            }
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
