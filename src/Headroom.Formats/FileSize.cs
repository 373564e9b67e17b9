namespace Headroom.Formats;

/// <summary>
/// Sizes of files, links followed: FileInfo.Length of a link is the length of the link, and a snapshot of the hub cache
/// holds links.
/// </summary>
internal static class FileSize
{
    /// <summary>Bytes of the file that the path leads to.</summary>
    public static long Measure(string path)
    {
        Core.RegularFile.Check(path);
        using var handle = File.OpenHandle(path);
        return RandomAccess.GetLength(handle);
    }
}
