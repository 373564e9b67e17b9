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

    private static OutputTarget OfFile(string path, bool overwrite = false) =>
        OutputTarget.OfFile(path, overwrite, "Give another.");

    private static OutputTarget OfFolder(string path, bool overwrite = false) =>
        OutputTarget.OfFolder(path, overwrite, "Give another.", n => n is "a" or "b" or "in/a");

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

    /// <summary>
    /// Files of other kinds, also in a folder below or behind a link, are named, and nothing is touched; so is one that
    /// comes while it is being written.
    /// </summary>
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

    private sealed class KilledException : Exception;

    /// <summary>
    /// A file system that cannot exchange two names. At one of its renames of folders and flushes the process is
    /// killed, or the operation fails, before it is done or after.
    /// </summary>
    private sealed class NoExchange(int at = 0, bool kill = false, bool done = false) : FileLayer
    {
        private bool _dead;

        /// <summary>Renames of folders and flushes so far, once they are counted.</summary>
        public int Operations { get; private set; }

        /// <summary>The place is taken, which has its own tests.</summary>
        public bool Counts { get; set; }

        public override bool Exchange(string one, string other) => false;
        public override void MoveFolder(string from, string to) => Do(() => base.MoveFolder(from, to));
        public override void FlushFolder(string path) => Do(() => base.FlushFolder(path));

        public override void DeleteFolder(string path)
        {
            if (_dead) throw new KilledException();
            base.DeleteFolder(path);
        }

        private void Do(Action action)
        {
            if (_dead) throw new KilledException();
            bool now = Counts && ++Operations == at;
            if (!now || done) action();
            if (!now) return;
            _dead = kill;
            throw kill ? new KilledException() : new IOException("Input/output error", 5);
        }
    }

    private string Aside => At(".f.replaced");

    private string[] Entries =>
        [.. Directory.GetFileSystemEntries(_folder.Path).Where(e => !Temporary.IsName(Path.GetFileName(e))).Order()];

    private (Exception? Error, int Operations) Replaced(NoExchange files)
    {
        Directory.CreateDirectory(At("f"));
        Put("f/a");
        Put("f.replaced/mine", "mine");
        FileLayer.Replace(files);
        var e = Record.Exception(() =>
        {
            using var target = OfFolder(At("f"), true);
            files.Counts = true;
            Write(target, "a", "b");
        });
        FileLayer.Replace(null);
        return (e, files.Operations);
    }

    /// <summary>
    /// Where names cannot be exchanged: at whatever rename or flush the disk fails or the process is killed, the old
    /// folder is at hand, in its place or aside, until the new one has the name; nothing that is half written has it;
    /// and the next write leaves nothing but the new one. A folder of the user's own with a like name stays.
    /// </summary>
    [Theory, InlineData(false, false), InlineData(false, true), InlineData(true, false), InlineData(true, true)]
    public void WithoutAnExchangeTheOldFolderIsKeptUntilTheNewOneHasItsName(bool kill, bool done)
    {
        var (error, operations) = Replaced(new NoExchange());
        Assert.Null(error);
        Assert.Equal([At("f"), At("f.replaced")], Entries);
        int aside = 0, replaced = 0;
        for (int at = 1; at <= operations; at++)
        {
            if (Directory.Exists(At("f"))) Directory.Delete(At("f"), true);
            error = Replaced(new NoExchange(at, kill, done)).Error;
            if (kill) Assert.IsType<KilledException>(error);
            bool isNew = File.Exists(At("f/b")), isAside = !Directory.Exists(At("f"));
            if (isNew) replaced++;
            if (isAside) aside++;
            if (error is HeadroomException e)
            {
                Assert.NotEmpty(e.ToDo);
                Assert.False(isAside, "a disk that works again after its fault puts the old one back");
            }
            // Only the last step, when the old one is let go, may fail unsaid.
            else if (!kill) Assert.True(error == null && isNew, $"operation {at}: {error}");
            string whole = isAside ? Aside : At("f");
            string[] names = isNew ? ["a", "b"] : ["a"];
            Assert.Equal(names, Directory.GetFileSystemEntries(whole).Select(Path.GetFileName).Order());
            Assert.All(Directory.GetFiles(whole), f => Assert.Equal(isNew ? "new" : "old", File.ReadAllText(f)));
            // Unasked nothing is replaced, and what lies aside is back in its place.
            FileLayer.Replace(new NoExchange());
            Refused(() => OfFolder(At("f")));
            Assert.Equal(isNew ? "new" : "old", File.ReadAllText(At("f/a")));
            using (var target = OfFolder(At("f"), true)) Write(target, "a");
            FileLayer.Replace(null);
            Assert.Equal("new", File.ReadAllText(At("f/a")));
            Assert.Equal([At("f"), At("f.replaced")], Entries);
            Assert.Equal("mine", File.ReadAllText(At("f.replaced/mine")));
        }
        Assert.True(replaced > 0 && aside == (kill ? 1 : 0), $"{replaced} {aside}");
    }

    /// <summary>A disk that fails for good between the two renames: the error says where the old folder is.</summary>
    [Fact]
    public void WhereTheOldFolderCannotBePutBackTheErrorNamesItsPlace()
    {
        var files = new FailsFrom();
        Put("f/a");
        FileLayer.Replace(files);
        using (var target = OfFolder(At("f"), true))
        {
            files.Left = 1; // it is moved aside, and no more
            var e = Assert.Throws<HeadroomException>(() => Write(target, "a"));
            Assert.Equal(1, e.ExitCode);
            Assert.Contains(Aside, e.ToDo, StringComparison.Ordinal);
        }
        // Nor does the next one write where it belongs.
        var refused = Assert.Throws<HeadroomException>(() => OfFolder(At("f")));
        Assert.Contains(Aside, refused.ToDo, StringComparison.Ordinal);
        FileLayer.Replace(null);
        Assert.Equal("old", File.ReadAllText(Path.Combine(Aside, "a")));
        Refused(() => OfFolder(At("f")));
        Assert.Equal([At("f")], Entries);
        Assert.Equal("old", File.ReadAllText(At("f/a")));
    }

    /// <summary>Some more folders are renamed, then none.</summary>
    private sealed class FailsFrom : FileLayer
    {
        public int Left { get; set; } = int.MaxValue;

        public override bool Exchange(string one, string other) => false;

        public override void MoveFolder(string from, string to)
        {
            if (Left-- <= 0) throw new IOException("Input/output error", 5);
            base.MoveFolder(from, to);
        }
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
            Assert.Contains(
                "is the model", Refused(() => target.KeepOff("the model", path)).Message, StringComparison.Ordinal);
        }
        Put("f/a");
        using (var folder = OfFolder(At("f"), true))
        {
            Assert.Contains(
                "holds the adapter", Refused(() => folder.KeepOff("the adapter", At("f/a"))).Message,
                StringComparison.Ordinal);
            folder.KeepOff("the adapter", path);
            folder.KeepOff("the adapter", null);
        }
        if (!OperatingSystem.IsLinux()) return;
        using (var p = System.Diagnostics.Process.Start("ln", [path, At("hard")])) p.WaitForExit();
        using var hard = OfFile(At("hard"), true);
        Assert.True(hard.IsSource(path));
    }

    public void Dispose()
    {
        FileLayer.Replace(null);
        _folder.Dispose();
    }
}
