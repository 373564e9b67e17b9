using System.Runtime.InteropServices;

namespace Headroom.Core;

/// <summary>
/// Whether a path leads to a file with a beginning and an end. To open a named pipe waits for its other end, a socket cannot be opened, and a device such as
/// /dev/zero never ends: none of them is a recipe, a data set or a model.
/// </summary>
public static partial class RegularFile
{
    private const int Here = -100, TypeOnly = 1, StructBytes = 256, ModeAt = 28; // AT_FDCWD, STATX_TYPE, sizeof(struct statx), offset of stx_mode: the same on every architecture (statx(2))
    private const int TypeMask = 0xF000, Pipe = 0x1000, CharacterDevice = 0x2000, BlockDevice = 0x6000, Socket = 0xC000;

    /// <summary>Refuses a pipe, socket or device, without opening it. A path that is not there, or is a folder, is left to who opens it. Checks on Linux alone.</summary>
    /// <exception cref="HeadroomException">It is one; exit code 2.</exception>
    public static void Check(string path)
    {
        string? kind = (Mode(path) & TypeMask) switch
        {
            Pipe => "a named pipe (FIFO)",
            CharacterDevice or BlockDevice => "a device",
            Socket => "a socket",
            _ => null,
        };
        if (kind != null) throw new HeadroomException($"{path} is {kind}, not a file.", "Give a regular file; write what the program gives to one first.");
    }

    // 0 = not known: the error of opening it says more.
    private static int Mode(string path)
    {
        if (!OperatingSystem.IsLinux() || path.Length == 0) return 0;
        Span<byte> s = stackalloc byte[StructBytes];
        try
        {
            return Statx(Here, path, 0, TypeOnly, ref s[0]) == 0 ? MemoryMarshal.Read<ushort>(s[ModeAt..]) : 0;
        }
        catch (EntryPointNotFoundException) // a C library before 2018
        {
            return 0;
        }
    }

    [LibraryImport("libc", EntryPoint = "statx", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Statx(int folder, string path, int flags, uint mask, ref byte result);
}
