using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Headroom.Core;

/// <summary>
/// Which file this is and when it last changed, as the file system says and no program can set: device, inode, and the
/// time of the last change of content or of names, rights and times (ctime; statx(2) on Linux,
/// FILE_BASIC_INFO.ChangeTime on Windows). Setting a file's modification time back changes its ctime.
/// </summary>
/// <param name="Device">The file system.</param>
/// <param name="Inode">The file in it.</param>
/// <param name="InodeHigh">Upper half of a 128-bit file id (Windows), else 0.</param>
/// <param name="ChangedNanoseconds">ctime, nanoseconds since 1970.</param>
/// <param name="IsRegular">False for pipes, devices and sockets.</param>
internal readonly partial record struct FileIdentity(
    ulong Device, ulong Inode, ulong InodeHigh, long ChangedNanoseconds, bool IsRegular)
{
    private const int EmptyPath = 0x1000, WorkingFolder = -100; // AT_EMPTY_PATH, AT_FDCWD
    private const uint Wanted = 0x1 | 0x80 | 0x100; // STATX_TYPE, STATX_CTIME, STATX_INO
    private const int TypeBits = 0xF000,
        Regular = 0x8000,
        Folder = 0x4000,
        Pipe = 0x1000,
        Socket = 0xC000; // S_IFMT, S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK
    private const int BasicInfo = 0, IdInfo = 18; // FILE_INFO_BY_HANDLE_CLASS
    private const long WindowsEpoch = 116_444_736_000_000_000; // 1970 in units of 100 ns since 1601

    /// <summary>Of an open file; null where the system cannot tell.</summary>
    public static FileIdentity? Read(SafeFileHandle file)
    {
        if (OperatingSystem.IsLinux()) return Linux((int)file.DangerousGetHandle(), "", EmptyPath)?.Identity;
        return OperatingSystem.IsWindows() ? Windows(file) : null;
    }

    /// <summary>
    /// Whether a path leads to something that is neither a file nor a folder: a pipe, a device or a socket. Opens
    /// nothing; false where nothing is there.
    /// </summary>
    public static bool IsSpecial(string path) => Special(path) != null;

    /// <summary>
    /// What a path leads to, with its article, when that is neither a file nor a folder; else null. Opens nothing; null
    /// too where the system cannot tell.
    /// </summary>
    public static string? Special(string path) =>
        !OperatingSystem.IsLinux() || Linux(WorkingFolder, path, 0) is not { } found
            ? null
            : (found.Mode & TypeBits) switch
            {
                Regular or Folder => null,
                Pipe => "a named pipe (FIFO)",
                Socket => "a socket",
                _ => "a device",
            };

    private static (FileIdentity Identity, int Mode)? Linux(int folder, string path, int flags)
    {
        try
        {
            if (Statx(folder, path, flags, Wanted, out var s) != 0 || (s.Mask & Wanted) != Wanted) return null;
            ulong device = ((ulong)s.DeviceMajor << 32) | s.DeviceMinor;
            return (
                new(
                    device, s.Inode, 0, s.Changed.Seconds * 1_000_000_000 + s.Changed.Nanoseconds,
                    (s.Mode & TypeBits) == Regular),
                s.Mode
            );
        }
        catch (EntryPointNotFoundException)
        {
            return null; // a C library from before 2018
        }
    }

    private static FileIdentity? Windows(SafeFileHandle file)
    {
        if (!ByHandle(file, BasicInfo, out BasicInformation basic, Marshal.SizeOf<BasicInformation>())) return null;
        if (!ByHandle(file, IdInfo, out IdInformation id, Marshal.SizeOf<IdInformation>()) || basic.Change <= 0)
            return null;
        return new(id.Volume, id.Low, id.High, (basic.Change - WindowsEpoch) * 100, true);
    }

    // struct statx of linux/stat.h: one layout on every architecture.
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct StatxBuffer
    {
        [FieldOffset(0)] public uint Mask;
        [FieldOffset(28)] public ushort Mode;
        [FieldOffset(32)] public ulong Inode;
        [FieldOffset(96)] public StatxTime Changed;
        [FieldOffset(136)] public uint DeviceMajor;
        [FieldOffset(140)] public uint DeviceMinor;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct StatxTime
    {
        public long Seconds;
        public uint Nanoseconds;
        public int Reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct BasicInformation
    {
        public long Created, Accessed, Written, Change;
        public uint Attributes;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct IdInformation
    {
        public ulong Volume, Low, High;
    }

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Statx(int folder, string path, int flags, uint mask, out StatxBuffer buffer);
    [LibraryImport("kernel32", EntryPoint = "GetFileInformationByHandleEx", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool ByHandle(SafeFileHandle file, int kind, out BasicInformation information, int size);
    [LibraryImport("kernel32", EntryPoint = "GetFileInformationByHandleEx", SetLastError = true)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static partial bool ByHandle(SafeFileHandle file, int kind, out IdInformation information, int size);
}
