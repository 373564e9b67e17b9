using System.Runtime.InteropServices;

namespace Headroom.Core;

/// <summary>
/// Two folders (or files) of one file system change their names at once: renameat2(2) with RENAME_EXCHANGE. So that at
/// every instant, also at that of a kill, either the old or the new one has the name. .NET has no call for it.
/// </summary>
internal static partial class FolderExchange
{
    private const int WorkingFolder = -100; // AT_FDCWD
    private const uint Exchange = 2; // RENAME_EXCHANGE

    /// <summary>
    /// Exchanges the names; false where the system or the file system cannot, and nothing has changed then.
    /// </summary>
    /// <param name="one">A folder that is there.</param>
    /// <param name="other">Another one on the same file system.</param>
    public static bool Try(string one, string other)
    {
        if (!OperatingSystem.IsLinux()) return false;
        try
        {
            return Rename(WorkingFolder, one, WorkingFolder, other, Exchange) == 0;
        }
        catch (EntryPointNotFoundException)
        {
            return false; // a C library from before 2018
        }
    }

    [LibraryImport("libc", EntryPoint = "renameat2", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Rename(int oneFolder, string one, int otherFolder, string other, uint flags);
}
