using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Tests.Formats;

/// <summary>What is there is replaced only when that was asked for, and then at once.</summary>
public sealed class OutputTargetTests : IDisposable
{
    private readonly TempFolder _folder = new();

    private string At(string name) => Path.Combine(_folder.Path, name);

    private string Put(string name, string text = "old")
    {
        Directory.CreateDirectory(Path.GetDirectoryName(At(name))!);
        File.WriteAllText(At(name), text);
        return At(name);
    }

    private static OutputTarget OfFile(string path, bool overwrite = false) => OutputTarget.OfFile(path, overwrite, "Give another.");

    private static OutputTarget OfFolder(string path, bool overwrite = false) => OutputTarget.OfFolder(path, overwrite, "Give another.", n => n is "a" or "b" or "in/a");

    private static HeadroomException Refused(Action action)
    {
        var e = Assert.Throws<HeadroomException>(action);
        Assert.Equal(2, e.ExitCode);
        return e;
    }

    private static void Write(OutputTarget target, params string[] names)
    {
        if (names.Length == 0) File.WriteAllText(target.Temporary, "new");
        foreach (string n in names)
        {
            Directory.CreateDirectory(target.Temporary);
            File.WriteAllText(Path.Combine(target.Temporary, n), "new");
        }
        target.Commit();
    }

    [Fact]
    public void AFileIsReplacedOnlyWhenAskedTo()
    {
        string path = Put("x");
        Assert.Contains("--overwrite", Refused(() => OfFile(path)).ToDo, StringComparison.Ordinal);
        using (var target = OfFile(path, true))
        {
            Assert.Equal("old", File.ReadAllText(path));
            Write(target);
        }
        Assert.Equal("new", File.ReadAllText(path));
        Assert.Equal([path], Directory.GetFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void WhatIsNotFinishedLeavesTheOldOne()
    {
        string path = Put("x"), folder = Path.GetDirectoryName(Put("f/a"))!;
        using (var target = OfFile(path, true)) File.WriteAllText(target.Temporary, "half");
        using (var target = OfFolder(folder, true)) Directory.CreateDirectory(target.Temporary);
        Assert.Equal("old", File.ReadAllText(path));
        Assert.Equal("old", File.ReadAllText(Path.Combine(folder, "a")));
        Assert.Equal(2, Directory.GetFileSystemEntries(_folder.Path).Length);
    }

    /// <summary>Files of other kinds, also in a folder below or behind a link, are named, and nothing is touched; so is one that comes while it is being written.</summary>
    [Fact]
    public void AFolderWithOtherFilesIsNeverReplaced()
    {
        Put("f/a");
        Put("f/in/a");
        Refused(() => OfFolder(At("f")));
        foreach (string foreign in (string[])["thesis.tex", "in/b", "c/a"])
        {
            Put("f/" + foreign, "mine");
            Assert.Contains(foreign, Refused(() => OfFolder(At("f"), true)).Message, StringComparison.Ordinal);
            File.Delete(At("f/" + foreign));
        }
        using (var target = OfFolder(At("f"), true))
        {
            Put("f/late", "mine");
            Refused(() => Write(target, "a", "b"));
        }
        Assert.Equal(("old", "mine"), (File.ReadAllText(At("f/a")), File.ReadAllText(At("f/late"))));
        File.Delete(At("f/late"));
        using (var target = OfFolder(At("f"), true)) Write(target, "b");
        Assert.Equal([At("f/b")], Directory.GetFileSystemEntries(At("f")));
        Assert.Equal([At("f")], Directory.GetFileSystemEntries(_folder.Path));
    }

    /// <summary>Whoever looks, sees the old folder or the new one: so does whoever looks after a kill.</summary>
    [Fact]
    public void AFolderIsReplacedInOneStep()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("other systems have no exchange of names");
        Put("f/a");
        bool done = false;
        int missing = 0;
        var watcher = new Thread(() =>
        {
            while (!Volatile.Read(ref done))
                if (!Directory.Exists(At("f"))) missing++;
        });
        watcher.Start();
        for (int i = 0; i < 100; i++)
            using (var target = OfFolder(At("f"), true)) Write(target, "a");
        Volatile.Write(ref done, true);
        watcher.Join();
        Assert.Equal((0, "new"), (missing, File.ReadAllText(At("f/a"))));
    }

    [Fact]
    public void AnEmptyFolderIsFreeAndAFileThatComesMeanwhileIsNot()
    {
        Directory.CreateDirectory(At("f"));
        using (var target = OfFolder(At("f"))) Write(target, "a");
        Assert.Equal("new", File.ReadAllText(At("f/a")));
        using var file = OfFile(At("x"));
        Put("x", "mine");
        Refused(() => Write(file));
        Assert.Equal("mine", File.ReadAllText(At("x")));
    }

    /// <summary>Through a link the file that it leads to is meant: it is replaced, and the link stays.</summary>
    [Fact]
    public void ALinkLeadsToThePlace()
    {
        string path = Put("real/x");
        File.CreateSymbolicLink(At("link"), path);
        File.CreateSymbolicLink(At("dangling"), At("nothing"));
        Refused(() => OfFile(At("link")));
        Refused(() => OfFile(At("dangling")));
        using (var target = OfFile(At("link"), true)) Write(target);
        Assert.Equal("new", File.ReadAllText(path));
        Assert.Equal(path, new FileInfo(At("link")).LinkTarget);
    }

    [Fact]
    public void FilesAndFoldersAreNotMistaken()
    {
        Put("f/a");
        Refused(() => OfFile(At("f"), true));
        Refused(() => OfFile(At("new") + Path.DirectorySeparatorChar, true));
        Refused(() => OfFolder(Put("x"), true));
        Refused(() => OfFile("", true));
        Refused(() => OfFolder("/", true));
        if (!OperatingSystem.IsLinux()) return;
        Assert.Contains("no ordinary file", Refused(() => OfFile("/dev/null", true)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void TwoWritersOfOnePlaceAreToldApart()
    {
        using var first = OfFile(At("x"));
        var e = Refused(() => OfFile(Path.Combine(_folder.Path, ".", "x")));
        Assert.Contains($"process {Environment.ProcessId}", e.Message, StringComparison.Ordinal);
        Write(first);
        first.Dispose();
        Assert.Equal([At("x")], Directory.GetFileSystemEntries(_folder.Path));
    }

    /// <summary>A source is known by every spelling: with dots, through a link of a folder, as a hard link.</summary>
    [Fact]
    public void ASourceIsKeptOff()
    {
        string path = Put("real/x");
        Directory.CreateSymbolicLink(At("linked"), At("real"));
        string[] spellings = [path, At("real/./x"), At("real/../linked/x"), At("linked/x")];
        foreach (string s in spellings)
        {
            using var target = OfFile(s, true);
            Assert.True(target.IsSource(path), s);
            Assert.Contains("is the model", Refused(() => target.KeepOff("the model", path)).Message, StringComparison.Ordinal);
        }
        Put("f/a");
        using (var folder = OfFolder(At("f"), true))
        {
            Assert.Contains("holds the adapter", Refused(() => folder.KeepOff("the adapter", At("f/a"))).Message, StringComparison.Ordinal);
            folder.KeepOff("the adapter", path);
            folder.KeepOff("the adapter", null);
        }
        if (!OperatingSystem.IsLinux()) return;
        using (var p = System.Diagnostics.Process.Start("ln", [path, At("hard")])) p.WaitForExit();
        using var hard = OfFile(At("hard"), true);
        Assert.True(hard.IsSource(path));
    }

    public void Dispose() => _folder.Dispose();
}
