using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Tests.Formats;

/// <summary>
/// One holder at a time, who is named to the second; nothing is left when it is given back, and what a killed holder
/// left holds nobody up.
/// </summary>
public sealed class FolderLockTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("headroom-lock-").FullName;

    private string At(string name) => Path.Combine(_root, name);

    private static HeadroomException Refused(string folder) =>
        Assert.Throws<HeadroomException>(() =>
            FolderLock.Take(folder, "The run folder", "Give another --name.").Dispose()
        );

    [Fact]
    public void TheSecondIsRefusedAndToldWhoHoldsIt()
    {
        string folder = At("runs/tiny");
        using (var held = FolderLock.Take(folder, "The run folder"))
        {
            Assert.True(held.IsEnforced);
            var e = Refused(folder);
            Assert.Equal(2, e.ExitCode);
            Assert.StartsWith(
                $"The run folder {folder} is in use by process {Environment.ProcessId} on {Environment.MachineName} "
                    + $"since ",
                e.Message, StringComparison.Ordinal);
            Assert.Equal("Give another --name.", e.ToDo);
            Assert.Contains(
                $"process {Environment.ProcessId} on", FolderLock.HolderOf(folder), StringComparison.Ordinal);
            Assert.True(Directory.EnumerateFiles(folder).All(f => FolderLock.IsOwn(Path.GetFileName(f))));
        }
        Assert.False(Path.Exists(At("runs"))); // it was made for the lock alone
        Assert.Null(FolderLock.HolderOf(folder));
        FolderLock.Take(folder, "The run folder").Dispose();
    }

    [Fact]
    public void AFolderThatHoldsSomethingStaysAsItWas()
    {
        Directory.CreateDirectory(At("runs/tiny"));
        using (FolderLock.Take(At("runs/tiny"), "The run folder"))
            File.WriteAllText(At("runs/tiny/events.jsonl"), "{}");
        Assert.Equal([At("runs/tiny/events.jsonl")], Directory.GetFileSystemEntries(At("runs/tiny")));
    }

    [Fact]
    public void WhatAKilledHolderLeftHoldsNobodyUp()
    {
        string folder = At("tiny");
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, FolderLock.FileName), "");
        string[] left =
        [
            "", "{}", "[1]", "{\"host\": 5}",
            new JsonObject
            {
                ["host"] = "elsewhere", ["host_mark"] = "00000000", ["pid"] = 1, ["since"] = "2026-01-01T00:00:00Z",
                ["command"] = "train",
            }.ToJsonString(),
        ];
        foreach (string holder in left)
        {
            File.WriteAllText(Path.Combine(folder, FolderLock.HolderName), holder);
            File.WriteAllText(Path.Combine(folder, FolderLock.FileName), "");
            Assert.Null(FolderLock.HolderOf(folder));
            FolderLock.Take(folder, "The run folder").Dispose();
        }
    }

    /// <summary>
    /// Processes race for one fresh folder: exactly one has it at any time, whoever gives it back and deletes its file
    /// meanwhile.
    /// </summary>
    [Fact]
    public void ManyThatRaceHaveItOneAfterTheOther()
    {
        string folder = At("runs/race");
        int inside = 0, most = 0, taken = 0;
        Parallel.For(0, 200, new ParallelOptions { MaxDegreeOfParallelism = 8 }, _ =>
        {
            try
            {
                using var held = FolderLock.Take(folder, "The run folder");
                int now = Interlocked.Increment(ref inside);
                InterlockedMax(ref most, now);
                Interlocked.Increment(ref taken);
                Thread.Yield();
                Interlocked.Decrement(ref inside);
            }
            catch (HeadroomException e) when (e.Message.Contains("in use by", StringComparison.Ordinal))
            {
            }
        });
        Assert.Equal(1, most);
        Assert.True(taken > 0);
    }

    private static void InterlockedMax(ref int most, int value)
    {
        for (int seen = Volatile.Read(ref most); value > seen;)
        {
            int before = Interlocked.CompareExchange(ref most, value, seen);
            if (before == seen) return;
            seen = before;
        }
    }

    [Fact]
    public void AFileThatIsToBeWrittenIsLockedByAHiddenFileBesideIt()
    {
        string target = At("out/tiny.gguf");
        using (FolderLock.Beside(target, "The file"))
        {
            var e = Assert.Throws<HeadroomException>(() => FolderLock.Beside(target, "The file"));
            Assert.Contains($"The file {target} is in use by process", e.Message, StringComparison.Ordinal);
            FolderLock.Beside(At("out/other.gguf"), "The file").Dispose();
            Assert.False(Path.Exists(target));
            File.WriteAllText(target, "x");
        }
        Assert.Equal([target], Directory.GetFileSystemEntries(At("out")));
    }

    [Fact]
    public void WhatCannotBeWrittenIsRefused()
    {
        File.WriteAllText(At("file"), "x");
        var e = Refused(At("file/below"));
        Assert.Contains("cannot be written", e.Message, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    public void Dispose() => Directory.Delete(_root, true);
}
