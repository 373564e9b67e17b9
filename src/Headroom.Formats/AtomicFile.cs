using System.Text;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>Files that are whole or not there: temporary file in the same folder, fsync, rename, fsync of the folder.</summary>
public static class AtomicFile
{
    /// <summary>Writes through <paramref name="write"/>.</summary>
    public static void Write(string path, Action<FileStream> write)
    {
        string temporary = Temporary.Beside(path);
        try
        {
            using (var file = new FileStream(temporary, FileMode.Create, FileAccess.Write))
            {
                write(file);
                file.Flush(flushToDisk: true);
            }
            File.Move(temporary, path, overwrite: true);
            DirectoryFlush.Run(Path.GetDirectoryName(Path.GetFullPath(path))!);
        }
        catch (Exception e)
        {
            if (File.Exists(temporary)) File.Delete(temporary);
            if (e is not (IOException or UnauthorizedAccessException)) throw;
            throw new HeadroomException($"Cannot write {path}: {e.Message}", "Choose another folder or free some space.", 1, e);
        }
    }

    /// <summary>Writes text as UTF-8.</summary>
    public static void WriteText(string path, string text) => Write(path, f => f.Write(Encoding.UTF8.GetBytes(text)));
}
