using System.Diagnostics;
using Headroom.Formats;

namespace Headroom.Tests.Formats;

/// <summary>What ended writers left goes with the next write into the folder; nothing else does.</summary>
public sealed class TemporaryTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-temporary-").FullName;

    private string At(string name) => Path.Combine(_folder, name);

    /// <summary>A name as another process would have given it; what is null is as here.</summary>
    private string Name(
        string target, string extension = "", string? host = null, int? process = null, string? life = null)
    {
        string own = Path.GetFileName(Temporary.Beside(At(target), extension));
        Assert.StartsWith($".{target}.", own, StringComparison.Ordinal);
        Assert.EndsWith(".tmp" + extension, own, StringComparison.Ordinal);
        string[] writer = own[(target.Length + 2)..].Split('.')[0].Split('-');
        return $".{target}.{host ?? writer[0]}-{process ?? int.Parse(writer[1])}-{life ?? writer[2]}-{writer[3]}.tmp{extension}";
    }

    private string Left(string name, bool folder = false, int days = 0)
    {
        if (folder)
        {
            Directory.CreateDirectory(At(name + "/below"));
            File.WriteAllText(At(name + "/below/model.safetensors"), "half");
            File.SetLastWriteTimeUtc(At(name + "/below/model.safetensors"), DateTime.UtcNow.AddDays(-days));
            Directory.SetLastWriteTimeUtc(At(name + "/below"), DateTime.UtcNow.AddDays(-days));
            Directory.SetLastWriteTimeUtc(At(name), DateTime.UtcNow.AddDays(-days));
        }
        else
        {
            File.WriteAllText(At(name), "half");
            File.SetLastWriteTimeUtc(At(name), DateTime.UtcNow.AddDays(-days));
        }
        return name;
    }

    private static Process Start(string seconds) => Process.Start("sleep", seconds);

    [Fact]
    public void WhatEndedWritersLeftGoesAndNothingElse()
    {
        if (OperatingSystem.IsWindows()) Assert.Skip("starts sleep");
        int dead;
        using (var p = Start("0"))
        {
            dead = p.Id;
            p.WaitForExit();
        }
        using var alive = Start("300");
        try
        {
            string[] gone =
            [
                Left(Name("out.gguf", ".gguf", process: dead)),
                Left(Name("out", process: dead), folder: true),
                Left(Name("other.json", process: dead)),
                Left(Name("own", life: "00000000")), // of a process that had our id before us
                Left(Name("far", host: "00000000"), days: 2),
                Left(Name("far2", host: "00000000", process: alive.Id), folder: true, days: 2),
            ];
            string[] stay =
            [
                Left(Name("out.gguf", ".gguf", process: alive.Id)),
                Left(Name("out", process: alive.Id), folder: true, days: 9),
                Left(Name("own")), // being written
                Left(Name("far", host: "00000000")),
                Left(Name("far3", host: "00000000"), folder: true), // of another host, which may be at it
                Left($"out.{dead}.tmp"),
                Left($".out.{dead}.tmp"),
                Left(".tmp"),
                Left($".out.{dead}-1.tmp", folder: true),
                Left("checkpoint-1.tmp", folder: true),
                Left(Name("out", process: dead)[1..]), Left(Name("out", process: dead) + ".a.b"),
                Left(Name("out", process: dead).Replace(".tmp", ".txt", StringComparison.Ordinal)), Left("out.gguf"),
            ];
            string kept = Directory.CreateTempSubdirectory("headroom-kept-").FullName;
            File.WriteAllText(Path.Combine(kept, "mine"), "kept");
            string link = Name("link", process: dead);
            Directory.CreateSymbolicLink(At(link), kept);
            AtomicFile.WriteText(At("config.json"), "{}");
            var there = Directory.GetFileSystemEntries(_folder).Select(f => Path.GetFileName(f));
            Assert.Equal(stay.Append("config.json").Order(StringComparer.Ordinal), there.Order(StringComparer.Ordinal));
            Assert.Equal("kept", File.ReadAllText(Path.Combine(kept, "mine"))); // the link went, not what it led to
            Directory.Delete(kept, true);
            Assert.DoesNotContain(gone, g => Path.Exists(At(g)));
        }
        finally
        {
            alive.Kill();
        }
    }

    [Fact]
    public void NamesAreNeverGivenTwice()
    {
        var names = new System.Collections.Concurrent.ConcurrentBag<string>();
        Parallel.For(0, 64, _ => names.Add(Temporary.Beside(At("x"), ".gguf")));
        Assert.Equal(64, names.Distinct().Count());
        Assert.All(names, n => Assert.Equal(_folder, Path.GetDirectoryName(n)));
        Assert.Equal("", Path.GetDirectoryName(Temporary.Beside("x"))); // a bare name lies in the working folder
        Assert.StartsWith("/.x.", Temporary.Beside("/x"), StringComparison.Ordinal);
    }

    public void Dispose() => Directory.Delete(_folder, true);
}
