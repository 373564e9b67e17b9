using System.Security.Cryptography;

namespace Headroom.Cuda;

/// <summary>
/// Cubins of earlier runs, a file each, with the SHA-256 of the cubin behind it. The driver takes a cubin without its
/// length and would read past the end of a truncated one, so a damaged file must not reach it. A cache that cannot be
/// read or written is no cache.
/// </summary>
internal sealed class CubinCache(string folder)
{
    /// <summary>The cubin that was written under a key, or null when there is none that is whole.</summary>
    public byte[]? Read(string key)
    {
        try
        {
            if (!File.Exists(PathOf(key))) return null;
            byte[] stored = File.ReadAllBytes(PathOf(key));
            int length = stored.Length - SHA256.HashSizeInBytes;
            return length > 0 && SHA256.HashData(stored.AsSpan(0, length)).AsSpan().SequenceEqual(stored.AsSpan(length))
                ? stored[..length]
                : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>
    /// Keeps a cubin under a key, in place of what is there; does nothing where the folder is read-only.
    /// </summary>
    public void Write(string key, byte[] cubin)
    {
        try
        {
            Directory.CreateDirectory(folder);
            string temporary = $"{PathOf(key)}.{Environment.ProcessId}.tmp";
            File.WriteAllBytes(temporary, [.. cubin, .. SHA256.HashData(cubin)]);
            File.Move(temporary, PathOf(key), overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { } // compiled again next time
    }

    private string PathOf(string key) => Path.Combine(folder, key + ".cubin");
}
