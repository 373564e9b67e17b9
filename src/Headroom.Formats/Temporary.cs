using System.Collections.Concurrent;
using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;

namespace Headroom.Formats;

/// <summary>
/// Names for files and folders that are being written and get their own name when they are whole: hidden, beside their
/// target, and naming their writer (host and process). So what a killed writer left is known as such, and goes with the
/// next write into the same folder.
/// </summary>
internal static partial class Temporary
{
    private static readonly TimeSpan Abandoned = TimeSpan.FromDays(1);
    // Linux tells a start by its ticks since boot, which drift from the clock
    private static readonly TimeSpan Slack = TimeSpan.FromSeconds(5);
    internal static readonly string Host = HostMark();
    // a container gives its first process the same id every time
    private static readonly string Life = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(4));
    // in which names were given
    private static readonly ConcurrentDictionary<string, bool> Folders = new(StringComparer.Ordinal);
    private static int _count; // two threads may write one path

    /// <summary>
    /// A free name in the folder of <paramref name="path"/>; leftovers in that folder are swept first (see
    /// <see cref="Sweep"/>).
    /// </summary>
    /// <param name="path">What is to be written.</param>
    /// <param name="extension">With its dot: for writers and readers that go by it.</param>
    public static string Beside(string path, string extension = "")
    {
        path = Path.TrimEndingDirectorySeparator(path);
        string folder = Path.GetDirectoryName(path) ?? "";
        Sweep(folder.Length > 0 ? folder : ".");
        Folders.TryAdd(Path.GetFullPath(folder.Length > 0 ? folder : "."), true);
        string writer = string.Create(
            CultureInfo.InvariantCulture, $"{Host}-{Environment.ProcessId}-{Life}-{Interlocked.Increment(ref _count)}");
        return Path.Combine(folder, $".{Path.GetFileName(path)}.{writer}.tmp{extension}");
    }

    /// <summary>
    /// Deletes what writers left in a folder that are no more: processes of this host that have ended. On a shared disk
    /// nobody knows whether a process of another host lives; what it left goes when it has not changed for a day.
    /// Everything else stays, and what cannot be deleted too: sweeping never fails a write.
    /// </summary>
    public static void Sweep(string folder) => Remove(folder, IsLeft);

    private static void Remove(string folder, Func<FileSystemInfo, Match, bool> goes)
    {
        try
        {
            foreach (var left in new DirectoryInfo(folder).EnumerateFileSystemInfos(".*"))
                if (Name().Match(left.Name) is { Success: true } m && goes(left, m)) Delete(left);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
        }
    }

    /// <summary>
    /// Deletes what this process has under temporary names: it is about to end in the middle of its work.
    /// </summary>
    public static void Abandon()
    {
        foreach (string folder in Folders.Keys)
            Remove(folder, (_, m) => m.Groups["host"].Value == Host && m.Groups["life"].Value == Life);
    }

    /// <summary>Whether a file name is one that <see cref="Beside"/> gives.</summary>
    public static bool IsName(string fileName) => Name().IsMatch(fileName);

    private static bool IsLeft(FileSystemInfo left, Match name)
    {
        if (name.Groups["host"].Value != Host) return DateTime.UtcNow - Changed(left) > Abandoned;
        int process = int.Parse(name.Groups["process"].Value, CultureInfo.InvariantCulture);
        return process == Environment.ProcessId ? name.Groups["life"].Value != Life : !Lives(process);
    }

    private static DateTime Changed(FileSystemInfo left) =>
        left is not DirectoryInfo { LinkTarget: null } folder
            ? left.LastWriteTimeUtc
            : folder
                .EnumerateFileSystemInfos("*", SearchOption.AllDirectories)
                .Select(f => f.LastWriteTimeUtc)
                .Append(folder.LastWriteTimeUtc)
                .Max();

    /// <summary>
    /// Whether a process of this host lives; with a time, whether it is the one that had the number then.
    /// </summary>
    /// <param name="process">Its number.</param>
    /// <param name="since">UTC; when it was seen to live.</param>
    internal static bool Lives(int process, DateTime? since = null)
    {
        try
        {
            using var p = Process.GetProcessById(process);
            // else its number was given to another
            return since == null || p.StartTime.ToUniversalTime() <= since + Slack;
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or Win32Exception)
        {
            return false;
        }
    }

    private static void Delete(FileSystemInfo left)
    {
        try
        {
            if (left is DirectoryInfo { LinkTarget: null } folder) folder.Delete(recursive: true);
            else left.Delete(); // a link goes, not what it leads to
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // another process was faster, or may and must
        }
    }

    /// <summary>
    /// Stands for this host and, on Linux, the space of process ids: that of a container knows nothing of another's.
    /// </summary>
    private static string HostMark()
    {
        string? space = OperatingSystem.IsLinux() ? new FileInfo("/proc/self/ns/pid").LinkTarget : null;
        return Convert.ToHexStringLower(
            SHA256.HashData(Encoding.UTF8.GetBytes($"{Environment.MachineName}\0{space}")).AsSpan(0, 4));
    }

    [GeneratedRegex(
        @"^\..+\.(?<host>[0-9a-f]{8})-(?<process>[0-9]{1,9})-(?<life>[0-9a-f]{8})-[0-9]{1,10}\.tmp(\.[^.]+)?$")]
    private static partial Regex Name();
}
