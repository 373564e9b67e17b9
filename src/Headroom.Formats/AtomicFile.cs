using System.Text;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>
/// Files that are whole or not there: temporary file in the same folder, fsync, rename, fsync of the folder.
/// </summary>
internal static class AtomicFile
{
    /// <summary>Writes through <paramref name="write"/>.</summary>
    /// <exception cref="HeadroomException">It cannot be written; exit code 1. What was there under its name is there
    /// still.</exception>
    public static void Write(string path, Action<Stream> write)
    {
        var files = FileLayer.Current;
        string temporary = Temporary.Beside(path);
        try
        {
            using (var file = files.Create(temporary))
            {
                write(file);
                files.Flush(file);
            }
            files.Move(temporary, path);
            files.FlushFolder(Path.GetDirectoryName(Path.GetFullPath(path))!);
        }
        catch (Exception e)
        {
            files.Discard(temporary);
            if (e is not (IOException or UnauthorizedAccessException)) throw;
            throw new HeadroomException(
                $"Cannot write {path}: {e.Message}", "Choose another folder or free some space.", 1, e);
        }
    }

    /// <summary>Copies a file; what is there under the new name is replaced.</summary>
    public static void Copy(string from, string to)
    {
        using var source = File.OpenRead(from);
        Write(to, source.CopyTo);
    }

    /// <summary>Writes text as UTF-8.</summary>
    public static void WriteText(string path, string text) => Write(path, f => f.Write(Encoding.UTF8.GetBytes(text)));
}
