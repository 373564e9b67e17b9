using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>
/// A folder or file that one process at a time may change. The operating system holds the lock for the living process
/// (flock on Unix, an exclusive handle on Windows), so that a kill frees it; a second file says who holds it, because
/// one that is locked exclusively cannot be read. Both go when the lock is given back.
/// </summary>
internal sealed class FolderLock : IDisposable
{
    /// <summary>Name of the lock in a folder.</summary>
    public const string FileName = "lock";
    /// <summary>Name of the file that says who holds it.</summary>
    public const string HolderName = FileName + Extension;
    private const string Extension = ".json"; // of the second file
    // until who took the lock has written its name
    private static readonly TimeSpan Settling = TimeSpan.FromMilliseconds(500);
    private static readonly ConcurrentDictionary<FolderLock, bool> Held = new(); // by this process
    private readonly string _path;
    private readonly FileStream _file;
    private readonly IReadOnlyList<string> _made;
    private bool _disposed;

    private FolderLock(string path, FileStream file, IReadOnlyList<string> made)
    {
        _path = path;
        _file = file;
        _made = made;
    }

    /// <summary>
    /// False where the file system knows no locks: then only a holder that is seen to live is refused.
    /// </summary>
    public bool IsEnforced { get; private set; }

    /// <summary>
    /// Locks a folder, which is made when it is missing (and goes again, when nothing was put into it).
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="what">What it is, as the beginning of a sentence: "The run folder".</param>
    /// <param name="toDo">What the user can do when another holds it; null = to wait.</param>
    /// <param name="say">Is told where the file system knows no locks.</param>
    /// <exception cref="HeadroomException">Another process (or this one) holds it, which is named; or the folder cannot
    /// be written.</exception>
    public static FolderLock Take(string folder, string what, string? toDo = null, Action<string>? say = null) =>
        Take(Path.Combine(folder, FileName), folder, what, toDo, say);

    /// <summary>
    /// Locks a file or folder that is to be made anew, by a hidden file beside it. Parameters and errors as for
    /// <see cref="Take(string, string, string?, Action{string}?)"/>.
    /// </summary>
    public static FolderLock Beside(string target, string what, string? toDo = null, Action<string>? say = null)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(target));
        return Take(
            Path.Combine(Path.GetDirectoryName(full) ?? full, $".{Path.GetFileName(full)}.{FileName}"), target, what,
            toDo, say);
    }

    /// <summary>Whether a file name is the lock's own: a folder that holds nothing else is as good as empty.</summary>
    public static bool IsOwn(string fileName) => fileName is FileName or HolderName;

    /// <summary>
    /// Who holds the lock of a folder now, in words; null when nobody does. Takes nothing and writes nothing.
    /// </summary>
    public static string? HolderOf(string folder)
    {
        string path = Path.Combine(folder, FileName);
        try
        {
            if (!File.Exists(path)) return null;
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
            // where there are no locks
            return Holder.Read(path) is { IsHere: true, Lives: true } holder ? holder.ToString() : null;
        }
        catch (Exception e)
            when (e is FileNotFoundException or DirectoryNotFoundException or UnauthorizedAccessException)
        {
            return null;
        }
        catch (IOException)
        {
            return Settled(path)?.ToString() ?? "another process";
        }
    }

    private static FolderLock Take(string path, string target, string what, string? toDo, Action<string>? say)
    {
        path = Path.GetFullPath(path);
        toDo ??= "Wait until that has ended, or stop it.";
        var made = new List<string>();
        FolderLock? taken = null;
        try
        {
            if (Open(path, made) is not { } file) throw InUse(what, target, Settled(path), toDo);
            taken = new FolderLock(path, file, made) { IsEnforced = IsLocked(path) };
            if (!taken.IsEnforced && Holder.Read(path) is { IsHere: true, Lives: true } living)
            {
                file.Dispose(); // not deleted: it is the other's
                throw InUse(what, target, living, toDo);
            }
            if (!taken.IsEnforced)
                say?.Invoke(
                    $"note: the file system of {target} knows no locks: nothing keeps a second process on another "
                        + $"machine out of it"
                );
            AtomicFile.WriteText(Holder.PathOf(path), Holder.Own().ToJson());
            Held[taken] = true;
            return taken;
        }
        catch (Exception e)
            when (e is IOException or UnauthorizedAccessException || e is HeadroomException { InnerException: not null }
            )
        {
            taken?.Dispose();
            RemoveEmpty(made);
            throw new HeadroomException(
                $"{what} {target} cannot be written: {(e.InnerException ?? e).Message}",
                "Give a folder that can be written.", 2, e);
        }
    }

    private static HeadroomException InUse(string what, string target, Holder? holder, string toDo) =>
        new($"{what} {target} is in use by {holder?.ToString() ?? "another process"}.", toDo);

    /// <summary>
    /// Opens the lock's file exclusively; null when another holds it. Tried a few times: the file is deleted when a
    /// lock is given back, so it may vanish under our hands, and whoever asks for the holder has it for an instant.
    /// </summary>
    private static FileStream? Open(string path, List<string> made)
    {
        const int attempts = 10, most = 100;
        for (int attempt = 1; ; attempt++)
        {
            Make(Path.GetDirectoryName(path)!, made);
            try
            {
                var file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 1);
                if (!IsGone(file)) return file;
                file.Dispose();
            }
            catch (IOException e) when (e is not PathTooLongException)
            {
                if (attempt >= attempts && IsLocked(path)) return null;
                if (attempt >= most)
                    throw; // given back just now, again and again: where many race, that is no fault of the folder
                Thread.Sleep(10);
            }
        }
    }

    private static void Make(string folder, List<string> made)
    {
        var missing = new Stack<string>();
        for (string? f = folder; f != null && !Directory.Exists(f); f = Path.GetDirectoryName(f)) missing.Push(f);
        foreach (string f in missing)
        {
            Directory.CreateDirectory(f);
            if (!made.Contains(f)) made.Add(f);
        }
    }

    /// <summary>
    /// Whether somebody, this process included, has a lock on the file. flock belongs to an open file, so a second one
    /// shows it.
    /// </summary>
    private static bool IsLocked(string path)
    {
        try
        {
            using var second = new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None, 1);
            return false;
        }
        catch (Exception e)
            when (e is FileNotFoundException or DirectoryNotFoundException or UnauthorizedAccessException)
        {
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }

    /// <summary>
    /// Whether the file lost its name between opening and locking: whoever had it before gave it back and deleted it.
    /// </summary>
    private static bool IsGone(FileStream file) =>
        OperatingSystem.IsLinux()
        && new FileInfo($"/proc/self/fd/{file.SafeFileHandle.DangerousGetHandle()}").LinkTarget is { } now
        && Path.GetFileName(now) != Path.GetFileName(file.Name);

    private static Holder? Settled(string path)
    {
        var since = Stopwatch.StartNew();
        while (true)
        {
            var holder = Holder.Read(path);
            if (holder is { IsHere: false } or { Lives: true } || since.Elapsed > Settling) return holder;
            Thread.Sleep(20);
        }
    }

    private static void RemoveEmpty(IEnumerable<string> made)
    {
        try
        {
            foreach (string folder in made.Reverse()) Directory.Delete(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // not empty, or gone already
        }
    }

    /// <summary>Gives back every lock of this process, which is about to end in the middle of its work.</summary>
    public static void Abandon()
    {
        foreach (var held in Held.Keys) held.Dispose();
    }

    /// <summary>Gives the lock back.</summary>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        Held.TryRemove(this, out _);
        try
        {
            File.Delete(Holder.PathOf(_path));
            // Only where a second opener can tell that its file was deleted (IsGone), or deleting an open file is
            // refused (Windows, below).
            if (OperatingSystem.IsLinux()) File.Delete(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The folder was moved or removed meanwhile; the lock ends with the handle.
        }
        _file.Dispose();
        RemoveEmpty(_made);
    }

    /// <summary>Who holds a lock, as its second file says.</summary>
    private sealed record Holder(string Host, string Mark, int Process, DateTime Since, string Command)
    {
        /// <summary>On this host, in this space of process ids: only then is it known whether it lives.</summary>
        public bool IsHere => Mark == Temporary.Host;

        public bool Lives => Temporary.Lives(Process, Since);

        public static string PathOf(string lockPath) => lockPath + Extension;

        public static Holder Own() =>
            new(
                Environment.MachineName, Temporary.Host, Environment.ProcessId, DateTime.UtcNow,
                string.Join(' ', Environment.GetCommandLineArgs().Skip(1)));

        public string ToJson() => new JsonObject
        {
            ["host"] = Host,
            ["host_mark"] = Mark,
            ["pid"] = Process,
            ["since"] = Since.ToString("O"),
            ["command"] = Command,
        }.ToJsonString() + "\n";

        public static Holder? Read(string lockPath)
        {
            try
            {
                var json = JsonNode.Parse(File.ReadAllText(PathOf(lockPath)))!;
                return new((string)json["host"]!, (string)json["host_mark"]!, (int)json["pid"]!,
                    DateTime.Parse(
                        (string)json["since"]!, CultureInfo.InvariantCulture, DateTimeStyles.AdjustToUniversal),
                    (string)json["command"]!
                );
            }
            catch (Exception e) // NullReferenceException: a key that is absent
                when (Malformed.Is(e) || e is IOException or UnauthorizedAccessException or NullReferenceException)
            {
                return null;
            }
        }

        public override string ToString()
        {
            const int most = 200;
            string command = string.Concat(Command.Select(c => char.IsControl(c) ? '?' : c));
            if (command.Length > most) command = command[..most] + "...";
            return string.Create(CultureInfo.InvariantCulture,
                $"process {Process} on {Host} since {Since:yyyy-MM-dd HH:mm:ss} "
                    + $"UTC{(command.Length > 0 ? $" ({command})" : "")}"
            );
        }
    }
}
