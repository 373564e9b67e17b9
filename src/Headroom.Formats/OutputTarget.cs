using Headroom.Core;

namespace Headroom.Formats;

/// <summary>
/// A file or folder in a place that the user named. It is written under a temporary name beside that place and gets its
/// name at the end, in one step: what was there stays whole until then, and a kill leaves the old or the new one.
/// Nothing that is there is replaced unasked, a folder only when all in it is of the kind that is written, and one
/// process at a time writes to a place.
/// </summary>
internal sealed class OutputTarget : IDisposable
{
    private const int MostNamed = 5;
    private readonly string _asked; // as the user wrote it
    private readonly string _final; // in full, links resolved
    private readonly bool _overwrite;
    private readonly string _another;
    private readonly Func<string, bool>? _isOurs; // of a folder
    private readonly FolderLock _lock;

    private OutputTarget(string path, bool overwrite, string another, Func<string, bool>? isOurs)
    {
        (_asked, _overwrite, _another, _isOurs) = (path, overwrite, another, isOurs);
        _final = Resolve();
        CheckFree();
        _lock = FolderLock.Beside(_final, "The output");
        try
        {
            GiveBack();
            CheckFree(); // whoever had the lock before may have written it
            Temporary = Formats.Temporary.Beside(_final, Path.GetExtension(_final));
        }
        catch
        {
            _lock.Dispose();
            throw;
        }
    }

    /// <summary>Takes a place for a file.</summary>
    /// <param name="path">The place.</param>
    /// <param name="overwrite">Whether a file that is there may be replaced.</param>
    /// <param name="another">What the user can do, such as "Give another --out.".</param>
    /// <exception cref="HeadroomException">Something is there that may not be replaced, another process writes there,
    /// or nothing can be written; exit code 2.</exception>
    public static OutputTarget OfFile(string path, bool overwrite, string another) =>
        new(path, overwrite, another, null);

    /// <summary>Takes a place for a folder; an empty one that is there counts as free.</summary>
    /// <param name="path">The place.</param>
    /// <param name="overwrite">Whether a folder that is there may be replaced.</param>
    /// <param name="another">What the user can do, such as "Give another --out.".</param>
    /// <param name="isOurs">Whether a file may be one that an earlier write of this kind left there: its path in the
    /// folder, with /.</param>
    /// <exception cref="HeadroomException">As for <see cref="OfFile"/>.</exception>
    public static OutputTarget OfFolder(string path, bool overwrite, string another, Func<string, bool> isOurs) =>
        new(path, overwrite, another, isOurs);

    // Hidden, so that it is nobody's own folder, and no name that a sweep takes: what is there may be the only one.
    private string Aside => Path.Combine(Folder, $".{Path.GetFileName(_final)}.replaced");

    private string Folder => Path.GetDirectoryName(_final)!;

    /// <summary>The place in full.</summary>
    public string Final => _final;

    /// <summary>Where to write to until <see cref="Commit"/>: a name that nothing has yet.</summary>
    public string Temporary { get; }

    /// <summary>
    /// Refuses a place that is or holds what is read: even where it may be overwritten, nothing would be left to write
    /// it from again.
    /// </summary>
    /// <param name="what">What is read, as a noun: "the adapter".</param>
    /// <param name="source">Its file or folder; what is not there is no matter.</param>
    /// <exception cref="HeadroomException">It is; exit code 2.</exception>
    public void KeepOff(string what, string? source)
    {
        if (source == null || !Path.Exists(source)) return;
        string? how = IsSource(source) ? "is" : _isOurs != null && IsInside(source, _final) ? "holds" : null;
        if (how != null) throw new HeadroomException($"The output {_asked} {how} {what}, which is read.", _another);
    }

    /// <summary>
    /// Whether the place is that file or folder, however the two are written: through links, hard ones too.
    /// </summary>
    public bool IsSource(string source) => Path.Exists(source) && IsSame(source, _final);

    /// <summary>Gives what was written its name.</summary>
    /// <exception cref="HeadroomException">It cannot be; exit code 1, or 2 where something is there now that may not be
    /// replaced. What was there is as before.</exception>
    public void Commit()
    {
        CheckFree();
        try
        {
            if (_isOurs == null) FileLayer.Current.Move(Temporary, _final, _overwrite);
            else CommitFolder();
            FileLayer.Current.FlushFolder(Folder);
            LetGo();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            string left = !IsAside ? ""
                : $" What was there is in {Aside}; the next write to the same place puts it back.";
            throw new HeadroomException($"Cannot write {_asked}: {e.Message}",
                "Choose another folder or free some space." + left, 1, e);
        }
    }

    private void CommitFolder()
    {
        FileLayer.Current.FlushFolder(Temporary);
        if (!Directory.Exists(_final)) FileLayer.Current.MoveFolder(Temporary, _final);
        else if (!Directory.EnumerateFileSystemEntries(_final).Any())
        {
            FileLayer.Current.DeleteFolder(_final);
            FileLayer.Current.MoveFolder(Temporary, _final);
        }
        else if (!FileLayer.Current.Exchange(Temporary, _final)) Replace();
        // After an exchange the old folder has the temporary name, and Dispose removes it.
    }

    // In two steps where the system has no better one: between them the old folder lies beside its place.
    private void Replace()
    {
        LetGo(); // of a write before this one, which was killed when the new folder had its name
        try
        {
            FileLayer.Current.MoveFolder(_final, Aside);
            FileLayer.Current.MoveFolder(Temporary, _final);
        }
        catch (Exception e) when (DiskFault.Find(e) != null)
        {
            try
            {
                if (IsAside) FileLayer.Current.MoveFolder(Aside, _final);
            }
            catch (Exception again) when (DiskFault.Find(again) != null)
            {
                // the next write does it
            }
            throw;
        }
    }

    // The old folder lies aside, and nothing has its name.
    private bool IsAside => _isOurs != null && Directory.Exists(Aside) && !Path.Exists(_final);

    // After a kill between the two steps of Replace.
    private void GiveBack()
    {
        try
        {
            if (IsAside) FileLayer.Current.MoveFolder(Aside, _final);
        }
        catch (Exception e) when (DiskFault.Find(e) != null)
        {
            throw new HeadroomException($"The output {_asked} cannot be written: {e.Message}",
                $"What was there is in {Aside}: move it back, or mend the disk.", 1, e);
        }
    }

    // Removes what lies aside, once its place is taken. Under a temporary name: half deleted, it must not be found
    // under the one that is given back.
    private void LetGo()
    {
        if (_isOurs == null || !Directory.Exists(Aside)) return;
        string going = Formats.Temporary.Beside(_final);
        try
        {
            FileLayer.Current.MoveFolder(Aside, going);
        }
        catch (Exception e) when (DiskFault.Find(e) != null)
        {
            // the next write does it
        }
        FileLayer.Current.Discard(going);
    }

    /// <summary>Removes what has no name yet, and gives the place free for others.</summary>
    public void Dispose()
    {
        try
        {
            FileLayer.Current.Discard(Temporary); // else the next write into the folder sweeps it
        }
        finally
        {
            _lock.Dispose();
        }
    }

    private string Resolve()
    {
        bool isFolderName = Path.EndsInDirectorySeparator(_asked);
        if (
            _asked.Trim().Length == 0
            || Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(_asked))) == null
        )
            throw new HeadroomException($"'{_asked}' is no name for a file or folder.", _another);
        if (_isOurs == null && isFolderName)
            throw new HeadroomException(
                $"The output {_asked} is the name of a folder, but a file is written.", _another);
        try
        {
            string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(_asked));
            var link = new FileInfo(full);
            if (link.LinkTarget == null) return full;
            return _overwrite ? link.ResolveLinkTarget(returnFinalTarget: true)!.FullName : throw Exists();
        }
        catch (IOException e)
        {
            throw new HeadroomException($"The output {_asked} cannot be written: {e.Message}", _another);
        }
    }

    private HeadroomException Exists() =>
        new($"The output {_asked} exists already.", $"{_another} Or replace it with --overwrite.");

    private void CheckFree()
    {
        try
        {
            CheckPlace();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException($"The output {_asked} cannot be written: {e.Message}", _another);
        }
    }

    private void CheckPlace()
    {
        if (FileIdentity.IsSpecial(_final))
            throw new HeadroomException($"The output {_asked} is no ordinary file or folder.", _another);
        bool isFile = File.Exists(_final), isFolder = Directory.Exists(_final);
        if (!isFile && !isFolder) return;
        if (_isOurs == null)
        {
            if (isFolder)
                throw new HeadroomException(
                    $"The output {_asked} exists already: it is a folder, and a file is written.", _another);
            if (!_overwrite) throw Exists();
            return;
        }
        if (isFile)
            throw new HeadroomException(
                $"The output {_asked} exists already: it is a file, and a folder is written.", _another);
        if (!Directory.EnumerateFileSystemEntries(_final).Any()) return;
        if (!_overwrite) throw Exists();
        string[] foreign = [.. Foreign(new DirectoryInfo(_final), "").Take(MostNamed + 1)];
        if (foreign.Length == 0) return;
        string names = string.Join(", ", foreign.Take(MostNamed)) + (foreign.Length > MostNamed ? " and more" : "");
        throw new HeadroomException(
            $"The output {_asked} holds files that are not of this kind, which would be lost: {names}.",
            $"{_another} Or move them away.");
    }

    private IEnumerable<string> Foreign(DirectoryInfo folder, string prefix)
    {
        foreach (var entry in folder.EnumerateFileSystemInfos().OrderBy(e => e.Name, StringComparer.Ordinal))
        {
            string name = prefix + entry.Name;
            if (entry is DirectoryInfo { LinkTarget: null } inner)
            {
                // An empty folder is nobody's loss; one with files is judged by these.
                foreach (string f in Foreign(inner, name + "/")) yield return f;
            }
            else if (entry.LinkTarget != null || !_isOurs!(name)) yield return name;
        }
    }

    // As the system names it, links on the way resolved: two spellings of one place are one.
    private static string RealPath(string path)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(path)), root = Path.GetPathRoot(full)!;
        string real = root;
        foreach (
            string part in full[root.Length..].Split(Path.DirectorySeparatorChar, StringSplitOptions.RemoveEmptyEntries)
        )
        {
            real = Path.Combine(real, part);
            var entry = new DirectoryInfo(real);
            if (entry.LinkTarget != null) real = RealPath(entry.ResolveLinkTarget(returnFinalTarget: true)!.FullName);
        }
        return real;
    }

    private static bool IsInside(string inner, string outer) =>
        RealPath(inner).StartsWith(RealPath(outer) + Path.DirectorySeparatorChar, Comparison);

    private static StringComparison Comparison =>
        OperatingSystem.IsWindows() ? StringComparison.OrdinalIgnoreCase : StringComparison.Ordinal;

    private static bool IsSame(string one, string other)
    {
        one = RealPath(one);
        other = RealPath(other);
        if (string.Equals(one, other, Comparison)) return true;
        if (!File.Exists(one) || !File.Exists(other)) return false;
        using var a = File.OpenHandle(one);
        using var b = File.OpenHandle(other);
        return FileIdentity.Read(a) is { } x
            && FileIdentity.Read(b) is { } y
            && (x.Device, x.Inode, x.InodeHigh) == (y.Device, y.Inode, y.InodeHigh);
    }
}
