using System.Runtime.InteropServices;

namespace Headroom.Core;

/// <summary>
/// fsync of a directory. A rename or a new file survives a loss of power only when the directory that names it has been
/// written too (fsync(2)); .NET has no call for it.
/// </summary>
internal static partial class DirectoryFlush
{
    private const int Invalid = 22; // EINVAL: this file system has nothing to flush for a directory

    /// <summary>Writes the entries of a directory to the disk. Does nothing on Windows, which journals them.</summary>
    /// <exception cref="IOException">The directory is not there, or the disk reports a fault.</exception>
    public static void Run(string path)
    {
        if (OperatingSystem.IsWindows()) return;
        int file = Open(path, 0); // O_RDONLY
        if (file < 0) throw new IOException($"{path}: {Marshal.GetLastPInvokeErrorMessage()}");
        try
        {
            if (Sync(file) != 0 && Marshal.GetLastPInvokeError() != Invalid)
                throw new IOException($"{path}: {Marshal.GetLastPInvokeErrorMessage()}");
        }
        finally
        {
            _ = Close(file);
        }
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);
    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int Sync(int file);
    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int file);
}
