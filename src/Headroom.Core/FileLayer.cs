namespace Headroom.Core;

/// <summary>
/// The few operations by which everything is written that must be whole or not there: atomic files, checkpoint folders,
/// exports, caches and logs. In production they are plain calls; a test puts a layer in their place that fails, writes
/// half, and forgets at a crash what was not flushed.
/// </summary>
/// <remarks>
/// What survives a loss of power is what fsync(2) promises and no more: bytes after <see cref="Flush"/>, names after
/// <see cref="FlushFolder"/> of the folder that holds them. Every method throws <see cref="IOException"/> or
/// <see cref="UnauthorizedAccessException"/>.
/// </remarks>
internal class FileLayer
{
    private static readonly AsyncLocal<FileLayer?> Replaced = new();
    private static readonly FileLayer Plain = new();

    /// <summary>The layer that is used here.</summary>
    public static FileLayer Current => Replaced.Value ?? Plain;

    /// <summary>
    /// Puts a layer in the place of the plain one, for what is called from here and for nobody else; null = the plain
    /// one again.
    /// </summary>
    internal static void Replace(FileLayer? layer) => Replaced.Value = layer;

    /// <summary>A new file for writing; one of that name is emptied.</summary>
    public virtual Stream Create(string path) => new FileStream(path, FileMode.Create, FileAccess.Write);

    /// <summary>
    /// A file for writing, made when it is not there, at its end; unbuffered, so that its length is what was written.
    /// Others may read it.
    /// </summary>
    public virtual Stream Append(string path)
    {
        var file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.Read, bufferSize: 0);
        file.Seek(0, SeekOrigin.End);
        return file;
    }

    /// <summary>fsync of a stream that this layer gave: its bytes are on the disk.</summary>
    public virtual void Flush(Stream file) => ((FileStream)file).Flush(flushToDisk: true);

    /// <summary>
    /// Renames a file; one of the new name is replaced in the same instant, or, without <paramref name="replace"/>, is
    /// an error.
    /// </summary>
    public virtual void Move(string from, string to, bool replace = true) => File.Move(from, to, replace);

    /// <summary>Renames a folder; the new name must be free.</summary>
    public virtual void MoveFolder(string from, string to) => Directory.Move(from, to);

    /// <summary>
    /// Two folders exchange their names at once; false where that cannot be done, and nothing has changed.
    /// </summary>
    public virtual bool Exchange(string one, string other) => FolderExchange.Try(one, other);

    /// <summary>Deletes a file, if it is there.</summary>
    public virtual void Delete(string path) => File.Delete(path);

    /// <summary>Deletes a folder and all that is in it.</summary>
    public virtual void DeleteFolder(string path) => Directory.Delete(path, recursive: true);

    /// <summary>Makes one folder; nothing happens when it is there.</summary>
    public virtual void CreateFolder(string path) => Directory.CreateDirectory(path);

    /// <summary>fsync of a folder: the names in it are on the disk.</summary>
    public virtual void FlushFolder(string path) => DirectoryFlush.Run(path);

    /// <summary>
    /// Makes a folder and what is missing above it, and flushes the names of what it made: a file in a folder that a
    /// crash takes back is lost with it.
    /// </summary>
    public void MakeFolder(string path)
    {
        path = Path.TrimEndingDirectorySeparator(Path.GetFullPath(path));
        if (Directory.Exists(path)) return;
        string? above = Path.GetDirectoryName(path);
        if (above != null) MakeFolder(above);
        CreateFolder(path);
        if (above != null) FlushFolder(above);
    }

    /// <summary>
    /// Deletes what an unfinished write left, as far as that can be done; never throws for the disk's faults.
    /// </summary>
    public void Discard(string path)
    {
        try
        {
            if (Directory.Exists(path)) DeleteFolder(path);
            else if (File.Exists(path)) Delete(path);
        }
        catch (Exception e) when (DiskFault.Find(e) != null)
        {
        }
    }
}

/// <summary>Tells faults of files and disks from all others.</summary>
internal static class DiskFault
{
    private const int NoSpace = 28,
        Quota = 122,
        MacQuota = 69,
        WindowsFull = 0x70,
        WindowsHandleFull = 0x27; // ENOSPC, EDQUOT

    /// <summary>The fault of a file or disk that an exception is, or that it was made from; null for others.</summary>
    public static Exception? Find(Exception? e) => e switch
    {
        IOException or UnauthorizedAccessException => e,
        HeadroomException { InnerException: { } inner } => Find(inner),
        _ => null,
    };

    /// <summary>
    /// True when there was no room on the disk, or none that this user may use: deleting something helps.
    /// </summary>
    public static bool IsFull(Exception? e) =>
        Find(e) is IOException io
        && (io.HResult & 0xFFFF) is NoSpace or Quota or MacQuota or WindowsFull or WindowsHandleFull;
}
