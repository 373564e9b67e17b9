using System.Diagnostics;
using System.Text.Json.Nodes;
using Headroom.Formats.HuggingFace;
using Headroom.Tests.Hub;
using Headroom.Training.Measure;

namespace Headroom.EndToEnd;

/// <summary>
/// SIGKILL while files are made: nothing half-written has its final name, the same command then gives the right result,
/// and what was left is swept.
/// </summary>
public class KillTests(ITestOutputHelper output)
{
    private static readonly string[] Ask =
    [
        "--prompt", "The concert was", "--max-new-tokens", "8", "--temperature", "0", "--device", "cpu", "--json"];

    private static Process Quiet(Process p)
    {
        p.OutputDataReceived += (_, _) => { };
        p.ErrorDataReceived += (_, _) => { };
        p.BeginOutputReadLine();
        p.BeginErrorReadLine();
        return p;
    }

    /// <summary>Kills the process as soon as <paramref name="now"/>; false when it ended before.</summary>
    private static bool Kill(Process p, Func<bool> now)
    {
        while (!p.HasExited && !now()) Thread.Sleep(0);
        if (p.HasExited) return false;
        p.Kill();
        p.WaitForExit();
        return true;
    }

    /// <summary>
    /// Temporary files and folders under a folder; that of a lock, which is taken before anything is written, is none.
    /// </summary>
    private static string[] Left(string folder) => !Directory.Exists(folder) ? []
            :
            [
                .. Directory
                    .GetFileSystemEntries(folder, ".*.tmp*", SearchOption.AllDirectories)
                    .Where(f => !Path.GetFileName(f).Contains(".lock", StringComparison.Ordinal)),
            ];

    private static string Ids(Cli cli, params string[] arguments)
    {
        var (exit, text, error) = cli.Run(["generate", .. arguments, .. Ask]);
        Assert.True(exit == 0, error);
        return JsonNode.Parse(text)!["ids"]!.ToJsonString();
    }

    [Theory, InlineData("gguf", "q8_0", "tiny.gguf"), InlineData("safetensors", "bf16", "merged")]
    public void AnExport(string format, string type, string name)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("SIGKILL is sent on Linux only");
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny"),
            folder = Path.Combine(cli.Folder, "out"),
            path = Path.Combine(folder, name);
        string[] command = ["export", model, "--format", format, "--type", type, "--out", path];
        using (var p = Quiet(cli.Start(command)))
            Assert.True(Kill(p, () => Left(folder).Length > 0), "it was not killed");
        Assert.NotEmpty(Left(folder));
        Assert.False(Path.Exists(path));
        // An export that is at work keeps its file, whatever others do in the same folder.
        using (var p = Quiet(cli.Start([.. command[..^1], path + "2" + Path.GetExtension(path)])))
        {
            while (!p.HasExited && Left(folder).Length == 0) Thread.Sleep(0);
            var (exit, _, error) = cli.Run(command);
            Assert.True(exit == 0, error);
            p.WaitForExit();
            Assert.Equal(0, p.ExitCode);
        }
        Assert.Empty(Left(folder));
        Assert.Equal(2, Directory.GetFileSystemEntries(folder).Length);
        Assert.NotEqual("[]", Ids(cli, path));
    }

    /// <summary>
    /// A base of llama-tiny's form whose feed-forward is wide: large enough to be killed in the middle of.
    /// </summary>
    internal static string Wide(Cli cli, int intermediate)
    {
        string folder = cli.CopyBase("llama-tiny"), config = Path.Combine(folder, "config.json");
        File.WriteAllText(
            config,
            File.ReadAllText(config)
                .Replace(
                    "\"intermediate_size\": 512", $"\"intermediate_size\": {intermediate}", StringComparison.Ordinal)
        );
        File.Delete(Path.Combine(folder, "model.safetensors"));
        SyntheticCheckpoint.Write(folder, HfConfig.Load(config));
        Thread.Sleep(200); // a hash of files that changed just now is not remembered
        return folder;
    }

    [Fact]
    public void TheQuantizedBase()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("SIGKILL is sent on Linux only");
        using var cli = new Cli();
        string recipe = cli.Recipe(Wide(cli, 8192)), copies = Path.Combine(cli.Folder, "cache", "quantized");
        string[] Command(string name, bool cache) =>
            [
                "train", recipe, "--name", name, "--set", $"quantization.cache={(cache ? "true" : "false")}", "--set",
                "training.max_steps=1"];
        string Losses(string name, bool cache)
        {
            var (exit, _, error) = cli.Run(Command(name, cache));
            Assert.True(exit == 0, error);
            var steps = File.ReadLines(Path.Combine(cli.Folder, "runs", name, "events.jsonl"))
                .Select(l => JsonNode.Parse(l)!)
                .Where(e => (string?)e["event"] == "step");
            return string.Concat(steps.Select(e => $"{e["loss"]} {e["grad_norm"]};"));
        }
        string without = Losses("without", false);
        Assert.False(Directory.Exists(copies));
        int killed = 0;
        foreach (int wait in (int[])[0, 4, 8, 16])
        {
            // A copy that is there was written before the kill: then there is nothing to kill any more.
            bool Whole() =>
                Directory.Exists(copies) && Directory.GetDirectories(copies).Any(d => Path.GetFileName(d)[0] != '.');
            string[] before = Left(copies);
            using var p = Quiet(cli.Start(Command($"killed{wait}", true)));
            Assert.True(Kill(p, () =>
            {
                if (!Left(copies).Except(before).Any()) return false;
                Thread.Sleep(wait);
                return true;
            }), "it was not killed");
            if (Whole()) break;
            Assert.NotEmpty(Left(copies));
            Assert.Empty(Left(copies).Intersect(before)); // of the kill before
            Assert.Contains("0 copies", cli.Run("cache").Out, StringComparison.Ordinal);
            killed++;
        }
        output.WriteLine($"{killed} kills");
        Assert.True(killed > 0, "no kill met the write");
        Assert.Equal(without, Losses("after", true));
        Assert.Empty(Left(copies));
        string copy = Path.Combine(Assert.Single(Directory.GetDirectories(copies)), "model.safetensors");
        DateTime written = File.GetLastWriteTimeUtc(copy);
        Assert.Equal(without, Losses("copy", true));
        Assert.Equal(written, File.GetLastWriteTimeUtc(copy));
    }

    /// <summary>
    /// Three pieces, the last one short: it is whole, and listed as such, when the second kill comes; the run after it
    /// does not ask for it again.
    /// </summary>
    [Fact]
    public void ADownload()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("SIGKILL is sent on Linux only");
        using var cli = new Cli();
        using var hub = new FakeHub { Slow = TimeSpan.FromMilliseconds(10), SlowBytes = 1 << 20 };
        string model = Wide(cli, 30_016);
        foreach (string f in Directory.EnumerateFiles(model))
            hub.Files["org/wide/" + Path.GetFileName(f)] = File.ReadAllBytes(f);
        string weights = Path.GetFileName(Assert.Single(Directory.GetFiles(model, "*.safetensors")));
        hub.Large.Add("org/wide/" + weights);
        cli.Environment["HF_ENDPOINT"] = hub.Endpoint;
        cli.Environment["NO_PROXY"] = "127.0.0.1";
        string[] command = ["generate", "org/wide", .. Ask];
        string repo = Path.Combine(cli.Folder, "hf", "hub", "models--org--wide"),
            hash = hub.Etag("org/wide/" + weights);
        string list = Path.Combine(repo, "blobs", hash + ".headroom.incomplete.pieces");
        void NothingHalf()
        {
            Assert.Empty(Directory.GetFiles(repo, weights, SearchOption.AllDirectories));
            foreach (
                string f in Directory
                    .GetFiles(Path.Combine(repo, "blobs"))
                    .Where(f => !f.Contains(".incomplete", StringComparison.Ordinal))
            )
                Assert.Equal(
                    Path.GetFileName(f),
                    Path.GetFileName(f).Length == 64
                        ? FakeHub.Sha256(File.ReadAllBytes(f))
                        : FakeHub.GitBlob(File.ReadAllBytes(f))
                );
            cli.Environment["HF_HUB_OFFLINE"] = "1";
            var (exit, _, error) = cli.Run(command);
            Assert.True(exit == 2, $"an unfinished download was taken: {error}");
            cli.Environment.Remove("HF_HUB_OFFLINE");
        }
        using (var p = Quiet(cli.Start(command))) Assert.True(Kill(p, () => hub.Sent > 4 << 20), "it was not killed");
        NothingHalf();
        using (var p = Quiet(cli.Start(command)))
            Assert.True(Kill(p, () => File.Exists(list) && File.ReadAllLines(list).Length > 1), "it was not killed");
        NothingHalf();
        Assert.Equal("2", File.ReadAllLines(list)[1]);
        hub.Slow = TimeSpan.Zero;
        hub.Requests.Clear();
        Assert.Equal(Ids(cli, model), Ids(cli, "org/wide"));
        Assert.Equal(2, hub.Requests.Count(r => r.Storage));
        Assert.DoesNotContain(hub.Requests, r =>
            r.Storage && r.Range!.StartsWith($"bytes={2 * (64 << 20)}", StringComparison.Ordinal)
        );
        Assert.Equal(hash, FakeHub.Sha256(File.ReadAllBytes(Path.Combine(repo, "blobs", hash))));
        Assert.Empty(Directory.GetFiles(repo, "*.incomplete*", SearchOption.AllDirectories));
    }
}
