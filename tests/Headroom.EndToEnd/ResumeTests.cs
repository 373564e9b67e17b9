using System.Text.Json.Nodes;
using Headroom.Formats.Gguf;
using Headroom.Formats.Peft;
using Headroom.Tests;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.EndToEnd;

/// <summary>
/// A run's folder from outside: one process at a time, the same run or a refusal that names what differs, and what was
/// trained taken from the manifest.
/// </summary>
public class ResumeTests
{
    private static readonly string[] Four = ["--set", "training.max_steps=4", "--set", "lora.r=4"];

    private static SortedDictionary<string, string> Files(string folder) =>
        new(
            Directory
                .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
                .ToDictionary(
                    f => f,
                    f => Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(f)))),
            StringComparer.Ordinal
        );

    private static (int Exit, string Out, string Error) Ok((int Exit, string Out, string Error) ran)
    {
        Assert.True(ran.Exit == 0, ran.Error);
        return ran;
    }

    private static void Refused((int Exit, string Out, string Error) ran, params string[] says)
    {
        Assert.True(ran.Exit == 2, $"exit {ran.Exit}: {ran.Out}{ran.Error}");
        Assert.All(says, s => Assert.Contains(s, ran.Error, StringComparison.Ordinal));
    }

    /// <summary>
    /// Takes the run's end out of its log, as a kill after the checkpoint of step 2 would have left it.
    /// </summary>
    private static void Unfinish(string run)
    {
        string log = Path.Combine(run, "events.jsonl");
        File.WriteAllLines(
            log, [.. File.ReadAllLines(log).TakeWhile(l => !l.Contains("\"step\":4,", StringComparison.Ordinal))]);
        Directory.Delete(Path.Combine(run, "checkpoints", "checkpoint-4"), true);
        Directory.Delete(Path.Combine(run, "best"), true);
    }

    /// <summary>
    /// A finished run changes no byte; best/ that is gone or spoiled comes back; nothing is trained over what has lost
    /// its checkpoints; a longer run goes on.
    /// </summary>
    [Fact]
    public void AFinishedRunIsLeftAsItIs()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny")),
            run = Path.Combine(cli.Folder, "runs", "tiny"),
            best = Path.Combine(run, "best");
        string hash = (string)JsonNode.Parse(Ok(cli.Run(["train", recipe, .. Four, "--json"])).Out)!["adapter_sha256"]!;
        var before = Files(run);
        var result = JsonNode.Parse(
            Ok(cli.Run(["train", recipe, .. Four, "--set", "training.logging_steps=1", "--resume", "--json"])).Out)!;
        Assert.Equal((hash, 4), ((string)result["adapter_sha256"]!, (int)result["steps"]!));
        Assert.NotNull((double?)result["accuracy"]);
        Assert.Equal(before, Files(run));
        Directory.Delete(best, true);
        // The written recipe is the same run, from anywhere.
        string text = Ok(cli.Run("train", Path.Combine(run, "recipe.yaml"), "--resume")).Out;
        Assert.Contains("was missing: restored from checkpoint-4", text, StringComparison.Ordinal);
        Assert.Contains("is finished", text, StringComparison.Ordinal);
        Assert.Equal(before, Files(run));
        Refused(
            cli.Run(["train", recipe, .. Four, "--set", "training.max_steps=3", "--resume"]), "longer, not shorter");
        text = Ok(
            cli.Run([
                "train",
                recipe,
                .. Four,
                "--set",
                "training.max_steps=6",
                "--set",
                "training.save_steps=1",
                "--resume",
            ])
        ).Out;
        Assert.Contains("from step 5 on the learning rate is that of a run of 6", text, StringComparison.Ordinal);
        var events = File.ReadLines(Path.Combine(run, "events.jsonl")).Select(l => JsonNode.Parse(l)!).ToList();
        Assert.Equal([1, 2, 3, 4, 5, 6], events.Where(e => (string?)e["event"] == "step").Select(e => (int)e["step"]!));
        var changed = events.Single(e => (string?)e["event"] == "resumed")["changed"]!.AsArray();
        Assert.Contains(changed, c =>
            (string)c!["key"]! == "training.save_steps" && (string)c["old"]! == "2" && (string)c["new"]! == "1"
        );
        Assert.Equal(
            1e-3 * (6 - 4) / 6,
            (double)events.Last(e => (string?)e["event"] == "step" && (int)e["step"]! == 5)["learning_rate"]!, 9);
        Assert.Contains(File.ReadLines(Path.Combine(run, "events-cut.jsonl")), l =>
            l.Contains("run_end", StringComparison.Ordinal)
        );
        Directory.Delete(Path.Combine(run, "checkpoints"), true);
        before = Files(run);
        Refused(
            cli.Run(["train", recipe, .. Four, "--set", "training.max_steps=9", "--resume"]), "holds no checkpoint",
            "6 steps");
        Assert.Equal(before, Files(run));
    }

    /// <summary>
    /// A report of a finished run or duel that is gone, wholly or in part, is written as it was, and nothing else.
    /// </summary>
    [Theory, InlineData("train"), InlineData("duel")]
    public void ReportsThatAreGoneAreWrittenAgain(string verb)
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny")), run = Path.Combine(cli.Folder, "runs", "tiny");
        string path = Cli.Base("llama-tiny");
        string two = $"models=[{{path: '{path}', name: one}}, {{path: '{path}', name: two}}]";
        string[] command = [verb, recipe, "--set", "training.max_steps=1", "--set", "lora.r=2"];
        if (verb == "duel") command = [.. command, "--set", two];
        Ok(cli.Run(command));
        var before = Files(run);
        string[] report = ["report.html", "report.md", "results.json"];
        foreach (string[] gone in (string[][])[report, .. report.Select(r => new[] { r })])
        {
            foreach (string name in gone) File.Delete(Path.Combine(run, name));
            Assert.Contains("report: ", Ok(cli.Run([.. command, "--resume"])).Out, StringComparison.Ordinal);
            Assert.Equal(before, Files(run));
        }
    }

    [Fact]
    public void WhatDiffersIsRefusedByNameAndNothingIsChanged()
    {
        using var cli = new Cli();
        string model = cli.CopyBase("llama-tiny"),
            recipe = cli.Recipe(model),
            run = Path.Combine(cli.Folder, "runs", "tiny"),
            train = Path.Combine(cli.Folder, "train.jsonl");
        string[] resume = ["train", recipe, .. Four, "--resume"];
        string hash = (string)JsonNode.Parse(Ok(cli.Run(["train", recipe, .. Four, "--json"])).Out)!["adapter_sha256"]!;
        Unfinish(run);
        var before = Files(run);
        string config = Path.Combine(model, "config.json"), test = Path.Combine(cli.Folder, "test.jsonl");
        void Spoiled(string file, Func<string, string> spoil, params string[] says)
        {
            string whole = File.ReadAllText(file);
            Assert.NotEqual(whole, spoil(whole));
            File.WriteAllText(file, spoil(whole));
            Refused(cli.Run(resume), says);
            File.WriteAllText(file, whole);
        }
        Spoiled(
            train,
            t =>
                t.Replace("\"label\": 0", "\"label\": 2", StringComparison.Ordinal)
                    .Replace("\"label\": 1", "\"label\": 0", StringComparison.Ordinal)
                    .Replace("\"label\": 2", "\"label\": 1", StringComparison.Ordinal),
            "train rows are not those",
            "64 rows as before"
        );
        Spoiled(
            train, t => string.Concat(t.Split('\n').Take(20).Select(l => l + "\n")), "train rows are not those",
            "there are 20, not 64");
        Spoiled(test, t => t.Replace("film", "movie", StringComparison.Ordinal), "test rows are not those");
        Spoiled(
            config,
            t => System.Text.RegularExpressions.Regex.Replace(t, "\"rope_theta\": [0-9.]+", "\"rope_theta\": 500"),
            "rope_theta is 500, was 10000");
        Refused(
            cli.Run([.. resume, "--set", "training.learning_rate=2e-3", "--set", "lora.r=8"]),
            "training.learning_rate is 0.002, was 0.001", "lora.r is 8, was 4");
        Refused(cli.Run([.. resume, "--set", "quantization.load_in_4bit=false"]), "linear_storage is ");
        Refused(
            cli.Run([.. resume, "--set", "task.labels={\"0\": \" bad\", \"1\": \" good\"}"]), "rows are not those",
            "task.labels is");
        string weights = Path.Combine(model, "model.safetensors");
        byte[] whole = File.ReadAllBytes(weights);
        whole[^1] ^= 1;
        File.WriteAllBytes(weights, whole);
        Refused(cli.Run(resume), "base model is not the one");
        whole[^1] ^= 1;
        File.WriteAllBytes(weights, whole);
        Assert.Equal(before, Files(run));
        // A file that moved, a configuration that was formatted anew, and levers that change no bit are the same run.
        File.Move(train, train + ".moved.jsonl");
        File.WriteAllText(config, JsonNode.Parse(File.ReadAllText(config))!.ToJsonString());
        var result = JsonNode.Parse(
            Ok(
                cli.Run([
                    .. resume,
                    "--json",
                    "--set",
                    "data.train=train.jsonl.moved.jsonl",
                    "--set",
                    "training.gradient_checkpointing=true",
                    "--set",
                    "training.per_device_eval_batch_size=3",
                    "--vram",
                    "2GiB",
                ])
            ).Out
        )!;
        Assert.Equal(hash, (string)result["adapter_sha256"]!);
    }

    /// <summary>The cases that were filed: the rows of a killed run are others when it is resumed.</summary>
    [Fact]
    public void TheCaseOfChangedDataIsRefused()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(
            Cli.Base("llama-tiny"), train: File.ReadAllText(Shared.CaseFile("resume-data-changed/a.jsonl")));
        Ok(cli.Run(["train", recipe, .. Four]));
        Unfinish(Path.Combine(cli.Folder, "runs", "tiny"));
        File.Copy(Shared.CaseFile("resume-data-changed/b.jsonl"), Path.Combine(cli.Folder, "train.jsonl"), true);
        Refused(cli.Run(["train", recipe, .. Four, "--resume"]), "there are 3, not 8");
    }

    /// <summary>Two processes on one folder: the second is told who holds it, and a kill frees it.</summary>
    [Fact]
    public void TheSecondProcessIsToldWhoHoldsTheFolder()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("SIGKILL is sent on Linux only");
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny")), run = Path.Combine(cli.Folder, "runs", "tiny");
        string[] command = ["train", recipe, "--set", "training.max_steps=100000"];
        using (var p = cli.Start(command))
        {
            p.OutputDataReceived += (_, _) => { };
            p.ErrorDataReceived += (_, _) => { };
            p.BeginOutputReadLine();
            p.BeginErrorReadLine();
            while (!p.HasExited && !Directory.Exists(Path.Combine(run, "checkpoints", "checkpoint-2"))) Thread.Sleep(5);
            Assert.False(p.HasExited);
            foreach (string[] second in new string[][] { command, [.. command, "--resume"] })
                Refused(cli.Run(second), $"in use by process {p.Id} on {Environment.MachineName} since");
            p.Kill();
            p.WaitForExit();
        }
        Assert.Null(new RunFolder(run).Holder);
        int last = (int)
            JsonNode.Parse(
                File.ReadLines(Path.Combine(run, "events.jsonl"))
                    .Last(l => l.StartsWith("{\"event\":\"step\"", StringComparison.Ordinal) && l.EndsWith('}'))
            )!["step"]!;
        Refused(cli.Run(["train", recipe, "--set", $"training.max_steps={last}", "--resume"]), "longer, not shorter");
    }

    /// <summary>
    /// An adapter trained on the base's own values is merged into them, whatever the recipe's file says: the manifest
    /// knows the overrides.
    /// </summary>
    [Theory, InlineData("false"), InlineData("true")]
    public void AnAdapterIsMergedIntoWhatItWasTrainedOn(string in4bit)
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny"), recipe = cli.Recipe(model), best = Path.Combine("runs", "tiny", "best");
        Ok(
            cli.Run([
                "train",
                recipe,
                .. Four,
                "--set",
                $"quantization.load_in_4bit={in4bit}",
                "--set",
                "training.learning_rate=1e-2",
            ])
        );
        string text = Ok(
            cli.Run("export", model, "--adapter", best, "--format", "safetensors", "--type", "f32", "--out", "merged")
        ).Out;
        Assert.Equal(
            in4bit == "true", text.Contains("merged as they were trained: NF4Double", StringComparison.Ordinal));
        using var original = WeightSources.Open(model);
        using var merged = WeightSources.Open(Path.Combine(cli.Folder, "merged"));
        var adapter = PeftAdapter.Load(Path.Combine(cli.Folder, best));
        const string name = "model.layers.0.self_attn.q_proj";
        var (rows, cols) = original.ShapeOf(name + ".weight");
        float[] w = new float[rows * cols],
            m = new float[rows * cols],
            a = adapter.Tensors[name + ".lora_A.weight"].Values,
            b = adapter.Tensors[name + ".lora_B.weight"].Values;
        original.ReadRows(name + ".weight", 0, rows, w);
        merged.ReadRows(name + ".weight", 0, rows, m);
        double error = 0, norm = 0;
        var (r, alpha) = (adapter.Lora.R, adapter.Lora.LoraAlpha);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++)
            {
                double due = w[i * cols + j];
                for (int k = 0; k < r; k++) due += (double)alpha / r * b[i * r + k] * a[k * cols + j];
                error += (m[i * cols + j] - due) * (m[i * cols + j] - due);
                norm += due * due;
            }
        error = Math.Sqrt(error / norm);
        if (in4bit == "false") Assert.InRange(error, 0, 1e-6);
        else Assert.InRange(error, 0.03, 0.2); // NF4's own error
        Ok(cli.Run("eval", recipe, "--adapter", best));
    }

    /// <summary>A recipe that was built in code leaves a folder that eval, export and resume take.</summary>
    [Fact]
    public void ARecipeBuiltInCodeLeavesAFolderLikeAnyOther()
    {
        using var cli = new Cli();
        cli.Recipe(Cli.Base("llama-tiny"));
        var recipe = new Recipe
        {
            Name = "code",
            Models = [new ModelOptions { Path = Cli.Base("llama-tiny") }],
            Device = DeviceChoice.Cpu,
            Lora = new() { R = 2, RankPattern = new() { ["q_proj"] = 3 } },
            Data = new()
            {
                Train = Path.Combine(cli.Folder, "train.jsonl"),
                Test = Path.Combine(cli.Folder, "test.jsonl"),
            },
            Task = new()
            {
                Template = "It is said:\n\"{text}\"\n#:",
                Labels = new() { ["0"] = " negative", ["1"] = " positive" },
                MaxSeqLength = 64,
            },
            Training = new() { MaxSteps = 2, PerDeviceTrainBatchSize = 4, LearningRate = 1.0 / 3000 },
        };
        string run = Path.Combine(cli.Folder, "runs", "code");
        var host = new RunHost(run, false, () => new Headroom.Cpu.CpuDevice(1), null, _ => { }, (_, _, _, _) => { });
        var result = TrainRun.Run(recipe, null, recipe.Models[0], host, TestContext.Current.CancellationToken);
        Assert.False(File.Exists(Path.Combine(run, "recipe.original.yaml")));
        string written = Path.Combine(run, "recipe.yaml"), best = Path.Combine(run, "best");
        double accuracy = (double)
            JsonNode.Parse(Ok(cli.Run("eval", written, "--adapter", best, "--json")).Out)!["accuracy"]!;
        Assert.Equal(result.Tuned!["accuracy"].Value, accuracy, 9);
        Assert.Contains(
            "merged as they were trained: NF4Double",
            Ok(cli.Run("export", Cli.Base("llama-tiny"), "--adapter", best, "--type", "f16", "--out", "code.gguf")).Out,
            StringComparison.Ordinal);
        Assert.Contains("is finished", Ok(cli.Run("train", written, "--resume")).Out, StringComparison.Ordinal);
        Assert.Equal(
            result.AdapterHash,
            (string)JsonNode.Parse(Ok(cli.Run("train", written, "--name", "again", "--json")).Out)!["adapter_sha256"]!);
    }

    /// <summary>A killed run without a checkpoint begins anew and keeps the log of what it had done.</summary>
    [Fact]
    public void ARunThatHadNoCheckpointYetBeginsAnewAndKeepsItsLog()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny")),
            run = Path.Combine(cli.Folder, "runs", "tiny"),
            log = Path.Combine(run, "events.jsonl");
        Ok(cli.Run(["train", recipe, .. Four]));
        string[] kept =
        [
            .. File.ReadAllLines(log).TakeWhile(l => !l.Contains("\"event\":\"checkpoint\"", StringComparison.Ordinal)),
        ];
        File.WriteAllLines(log, kept);
        Directory.Delete(Path.Combine(run, "checkpoints"), true);
        Directory.Delete(Path.Combine(run, "best"), true);
        string text = Ok(cli.Run(["train", recipe, .. Four, "--resume"])).Out;
        Assert.Contains("begins anew; the log of its 2 steps is kept", text, StringComparison.Ordinal);
        Assert.Equal(kept, File.ReadAllLines(Path.Combine(run, "events-cut.jsonl")));
    }

    /// <summary>
    /// A finished duel is left as it is; one whose data changed is refused, and so is another recipe.
    /// </summary>
    [Fact]
    public void AFinishedDuelIsLeftAsItIs()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny")),
            duel = Path.Combine(cli.Folder, "runs", "tiny"),
            train = Path.Combine(cli.Folder, "train.jsonl");
        string[] command =
        [
            "duel",
            recipe,
            .. Four,
            "--set",
            $"models=[{{path: '{Cli.Base("llama-tiny")}'}}, {{path: '{Cli.Base("deepseek-tiny")}'}}]",
            "--set",
            "training.max_steps=2",
        ];
        Ok(cli.Run(command));
        var before = Files(duel);
        Ok(cli.Run([.. command, "--resume"]));
        Refused(cli.Run([.. command, "--set", "lora.lora_alpha=3", "--resume"]), "lora.lora_alpha is 3, was default");
        Refused(cli.Run(["train", recipe, "--resume"]), "holds a duel");
        File.WriteAllText(train, File.ReadAllText(train).Replace("film", "movie", StringComparison.Ordinal));
        Refused(cli.Run([.. command, "--resume"]), "train rows are not those");
        Assert.Equal(before, Files(duel));
    }
}
