namespace Headroom.EndToEnd;

/// <summary>Bad input: two lines, exit code 2, nothing half-written.</summary>
public class BadInputTests
{
    private static (int Exit, string Out, string Error) Refused(Cli cli, string says, params string[] arguments)
    {
        var (exit, text, error) = cli.Run(arguments);
        string[] lines = error.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.True(
            exit == 2
                && lines.Length == 2
                && lines[0].StartsWith("error: ", StringComparison.Ordinal)
                && lines[1].StartsWith("  ", StringComparison.Ordinal),
            $"exit {exit}: {error}"
        );
        Assert.Contains(says, error, StringComparison.OrdinalIgnoreCase);
        Assert.False(
            Directory.Exists(Path.Combine(cli.Folder, "runs", "tiny"))
                && !File.Exists(Path.Combine(cli.Folder, "runs", "tiny", "mine")),
            "a run folder was left"
        );
        Assert.Empty(Directory.EnumerateFiles(cli.Folder, "*.partial", SearchOption.AllDirectories));
        Assert.Empty(Directory.EnumerateFiles(cli.Folder, "*.tmp", SearchOption.AllDirectories));
        return (exit, text, error);
    }

    [Theory]
    [InlineData("model", "safetensors")]
    [InlineData("truncated", "safetensors")]
    [InlineData("header", "header")]
    [InlineData("shape", "gate_proj.weight is [512")]
    [InlineData("nan", "finite")]
    public void SpoiledSafetensors(string how, string says)
    {
        using var cli = new Cli();
        string folder = cli.CopyBase("llama-tiny"),
            weights = Path.Combine(folder, "model.safetensors"),
            config = Path.Combine(folder, "config.json");
        byte[] bytes = File.ReadAllBytes(weights);
        switch (how)
        {
            case "model": File.Delete(weights); break;
            case "truncated": File.WriteAllBytes(weights, bytes[..(bytes.Length / 2)]); break;
            case "header":
                BitConverter.TryWriteBytes(bytes, 1L << 60);
                File.WriteAllBytes(weights, bytes);
                break;
            case "shape":
                File.WriteAllText(
                    config,
                    File.ReadAllText(config)
                        .Replace("\"intermediate_size\": 512", "\"intermediate_size\": 576", StringComparison.Ordinal)
                );
                break;
            case "nan":
                (bytes[^2], bytes[^1]) = (0xC0, 0x7F);
                File.WriteAllBytes(weights, bytes);
                break;
        }
        Refused(cli, says, "train", cli.Recipe(folder));
    }

    [Theory]
    [InlineData("missing")]
    [InlineData("short")]
    [InlineData("magic")]
    public void SpoiledGguf(string how)
    {
        using var cli = new Cli();
        string file = Path.Combine(cli.Folder, "model.gguf");
        if (how == "short") File.WriteAllBytes(file, [.. "GGUF"u8, 3, 0, 0, 0, 9]);
        if (how == "magic") File.WriteAllBytes(file, new byte[4096]);
        Refused(cli, "model.gguf", "train", cli.Recipe(file));
        Refused(cli, "model.gguf", "inspect", file);
    }

    [Theory]
    [InlineData("training.learnin_rate=1", "learning_rate")]
    [InlineData("training.precision=bf16", "precision")]
    [InlineData("quantization.load_in_8bit=true", "load_in_")]
    [InlineData("task.max_seq_length=6", "max_seq_length")]
    [InlineData("training.lr_scheduler_type=wavy", "wavy")]
    [InlineData("data.train=nothing.jsonl", "nothing.jsonl")]
    [InlineData("training.learning_rate=fast", "learning_rate")]
    [InlineData("training.eval_strategy=epoch", "no validation rows")]
    [InlineData("lora.r=100000", "lora.r")]
    [InlineData("lora.rank_pattern={q_proj: 100000}", "lora.rank_pattern")]
    [InlineData("lora.rank_pattern={nope: 4}", "lora.rank_pattern: 'nope' matches no module")]
    [InlineData("lora.lora_dropout=0.97", "lora_dropout is 0.97.")]
    [InlineData("data.validation_fraction=0.001", "holds out no row")]
    public void RecipeKeys(string set, string says)
    {
        using var cli = new Cli();
        Refused(cli, says, "train", cli.Recipe(Cli.Base("llama-tiny")), "--set", set);
    }

    [Fact]
    public void StandardInputThatIsNoTextIsRefused()
    {
        using var cli = new Cli();
        using var p = cli.Start(true, ["generate", Cli.Base("llama-tiny"), "--device", "cpu", "--max-new-tokens", "3"]);
        p.StandardInput.BaseStream.Write([(byte)'c', 0xE9, (byte)' ', (byte)'w']);
        p.StandardInput.Close();
        string error = p.StandardError.ReadToEnd();
        Assert.True(p.WaitForExit(60_000), "the tool hangs");
        Assert.Equal(2, p.ExitCode);
        Assert.Contains("not UTF-8", error);
    }

    /// <summary>A sum of counts that an int does not hold, and names that would steer a terminal.</summary>
    [Fact]
    public void ExtremeNumbersAndNames()
    {
        using var cli = new Cli();
        Refused(
            cli, "exceeds the model's 512", "generate", Cli.Base("llama-tiny"), "--device", "cpu", "--prompt", "hi",
            "--max-new-tokens", "2147483647");
        Refused(
            cli, "no token 2147483647", "generate", Cli.Base("llama-tiny"), "--device", "cpu", "--prompt", "hi",
            "--stop-id", "2147483647");
        foreach (string name in new[] { "red\u001b[31m", "turned\u202eround", "bell\u0007" })
        {
            var (_, _, error) = Refused(cli, "\\u", "inspect", name);
            Assert.DoesNotContain(error.Replace("\n", "", StringComparison.Ordinal), char.IsControl);
        }
    }

    [Fact]
    public void Data()
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny");
        Refused(
            cli, "label", "train",
            cli.Recipe(model, train: "{\"text\": \"one\", \"label\": 0}\n{\"text\": \"two\", \"label\": 7}\n"));
        Refused(cli, "no rows", "train", cli.Recipe(model, train: ""));
        Refused(
            cli, "class", "train",
            cli.Recipe(model, test: "{\"text\": \"one\", \"label\": 1}\n{\"text\": \"two\", \"label\": 1}\n"));
        Refused(
            cli,
            "also",
            "train",
            cli.Recipe(
                model,
                test: "{\"text\": \"first 0: an awful film by Marlow\", \"label\": 0}\n{\"text\": \"two\", \"label\": "
                    + "1}\n"
            )
        );
        Refused(
            cli, "train.jsonl", "train", cli.Recipe(model, train: "{\"text\": \"one\", \"label\": 0}\n{\"text\": \n"));
    }

    [Fact]
    public void Folders()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        Refused(cli, "no recipe", "train", Path.Combine(cli.Folder, "none.yaml"));
        Refused(cli, "cannot be written", "train", recipe, "--runs", Path.Combine(recipe, "below"));
        Refused(cli, "resume", "train", recipe, "--resume");
        Refused(cli, "two or more", "duel", recipe);
        string mine = Path.Combine(cli.Folder, "runs", "tiny", "mine");
        Directory.CreateDirectory(Path.GetDirectoryName(mine)!);
        File.WriteAllText(mine, "kept");
        Refused(cli, "exists", "train", recipe);
        Assert.Equal("kept", File.ReadAllText(mine));
        Refused(cli, "events.jsonl", "report", cli.Folder);
    }

    [Fact]
    public void CommandLines()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        Refused(cli, "nonsense", "nonsense");
        Refused(cli, "--nonsense", "train", recipe, "--nonsense");
        Refused(cli, "recipe", "train");
        Refused(cli, "empty", "generate", "");
        Refused(cli, "--rows", "plan", recipe, "--rows", "x");
        Refused(cli, "name", "train", recipe, "--name", "../tiny");
        Refused(cli, "cannot be written", "pretrain", Path.Combine(recipe, "below"), "--notes", "50");
        Refused(
            cli, "cannot be written", "export", Cli.Base("llama-tiny"), "--out", Path.Combine(recipe, "below", "x.gguf")
        );
        var (exit, text, error) = cli.Run();
        Assert.True(exit == 2 && text.Length == 0 && error.Contains("duel", StringComparison.Ordinal), error);
    }

    [Fact]
    public void DuelThatIsRefusedLeavesNoFolder()
    {
        using var cli = new Cli();
        Refused(cli, "precision", "duel", "--name", "tiny", "--set", "training.precision=fp16");
        Refused(cli, "resume", "duel", "--name", "tiny", "--resume");
    }

    /// <summary>A budget that is none, and one in which nothing fits: said before anything is read or made.</summary>
    [Theory]
    [InlineData("0", "not a size")]
    [InlineData("-1", "not a size")]
    [InlineData("NaN", "not a size")]
    [InlineData("1e30GiB", "not a size")]
    [InlineData("auto", "not a size")]
    [InlineData("24", "24GiB")]
    [InlineData("1KiB", "1.0 KiB are allowed")]
    [InlineData("1MiB", "1 MiB are allowed; the biggest rows: Workspace (static)")]
    public void Budgets(string vram, string says)
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        Refused(cli, says, "train", recipe, "--vram", vram);
        Refused(cli, says, "train", recipe, "--set", $"vram={vram}");
        Refused(cli, says, "plan", recipe, "--vram", vram);
        Refused(cli, says.Split(';')[0], "plan", Cli.Base("llama-tiny"), "--vram", vram);
    }

    /// <summary>Without a GPU, --device cuda says what is missing and auto takes the CPU and says so.</summary>
    [Fact]
    public void Devices()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny")), model = Cli.Base("llama-tiny");
        string[][] all =
        [
            ["train", recipe], ["plan", recipe], ["duel"], ["eval", recipe], ["generate", model, "--prompt", "x"],
            ["bench", "step", model], ["bench", "load", Path.Combine(model, "config.json"), "--work", cli.Folder],
            ["quantize", model, "q"], ["export", model, "--out", "x.gguf"], ["pretrain", "p", "--notes", "50"]];
        foreach (string[] command in all)
        {
            var (_, said, _) = Refused(cli, "CUDA:0", [.. command, "--device", "CUDA:0"]);
            Assert.DoesNotContain("writing", said, StringComparison.Ordinal);
        }
        Refused(cli, "takes no --device", "plan", model, "--device", "cuda");
        Refused(cli, "takes no --set", "plan", model, "--set", "lora.r=4");
        Refused(cli, "takes no --rows", "plan", recipe, "--rows", "2");
        if (!cli.Run("doctor").Out.Contains("No NVIDIA driver", StringComparison.Ordinal))
            Assert.Skip("this machine has a driver");
        foreach (string[] command in all)
        {
            var (_, said, _) = Refused(cli, "libcuda", [.. command, "--device", "cuda"]);
            Assert.DoesNotContain("writing", said, StringComparison.Ordinal); // a checkpoint for bench load
            Assert.False(
                Path.Exists(Path.Combine(cli.Folder, "q"))
                    || Path.Exists(Path.Combine(cli.Folder, "x.gguf"))
                    || Path.Exists(Path.Combine(cli.Folder, "p", "model.safetensors"))
            );
        }
        var (exit, text, error) = cli.Run("train", recipe, "--device", "auto", "--set", "training.max_steps=1");
        Assert.True(
            exit == 0 && text.StartsWith("device: CPU (No NVIDIA driver", StringComparison.Ordinal), text + error);
        // Where standard output is the text of a model, the note is not part of it.
        (exit, text, error) = cli.Run("generate", model, "--prompt", "The film was", "--max-new-tokens", "3");
        Assert.True(
            exit == 0 && error.StartsWith("device: CPU (No NVIDIA driver", StringComparison.Ordinal), text + error);
        Assert.Equal(
            cli.Run("generate", model, "--prompt", "The film was", "--max-new-tokens", "3", "--device", "cpu").Out, text
        );
    }

    /// <summary>
    /// A library under the driver's or a vendor's name that is another: named by doctor, refused by cuda, passed over
    /// by auto.
    /// </summary>
    [Fact]
    public void ALibraryThatIsNotWhatItsNameSays()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "libraries are looked for by their Linux names");
        using var cli = new Cli();
        string folder = Directory.CreateDirectory(Path.Combine(cli.Folder, "libraries")).FullName,
            any = Path.Combine(Path.GetDirectoryName(typeof(object).Assembly.Location)!, "libSystem.Native.so");
        File.Copy(any, Path.Combine(folder, "libcuda.so.1"));
        cli.Environment["LD_LIBRARY_PATH"] = folder;
        var (exit, text, error) = cli.Run("doctor");
        Assert.True(exit == 0 && text.Contains("libcuda.so.1 has no cuInit") && error.Length == 0, text + error);
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        Refused(cli, "has no cuInit", "train", recipe, "--device", "cuda");
        (exit, text, error) = cli.Run("train", recipe, "--device", "auto", "--set", "training.max_steps=1");
        Assert.True(exit == 0 && text.Contains("device: CPU ("), text + error);
    }

    [Fact]
    public void Benchmarks()
    {
        using var cli = new Cli();
        string model = cli.CopyBase("llama-tiny");
        Refused(cli, "no model", "bench", "load", "nowhere");
        Refused(cli, "--rounds", "bench", "load", model, "--rounds", "0");
        Refused(cli, "--dropout", "bench", "step", model, "--dropout", "1");
        Refused(cli, "at least one row", "bench", "step", model, "--rows", "0");
        foreach (
            string[] command in (string[][])
                [
                    ["bench", "step", model], ["plan", model]]
        )
            Assert.Contains(
                "Set a smaller --rows or --length.",
                Refused(
                    cli, "100000 rows of 4096 tokens is too large", [.. command, "--rows", "100000", "--length", "4096"]
                ).Error,
                StringComparison.Ordinal
            );
        foreach (string layers in (string[])["5", "-2"])
            Refused(cli, "--recompute is " + layers, "bench", "step", model, "--recompute", layers);
        Refused(cli, "takes no --graphs", "bench", "step", model, "--device", "cpu", "--graphs", "true");
        Refused(cli, "takes no --expanded", "bench", "step", model, "--device", "cpu", "--expanded", "4GiB");
        foreach (
            string[] command in (string[][])
                [
                    ["bench", "step", model], ["plan", model]]
        )
            Refused(cli, "--r is 513, more than any side", [.. command, "--r", "513"]);
        Refused(cli, "no folder", "bench", "load", model, "--work", Path.Combine(cli.Folder, "nowhere"));
        var (exit, output, error) = cli.Run(
            "bench", "load", model, "--device", "cpu", "--rounds", "1", "--work", cli.Folder);
        Assert.True(exit == 0, error);
        foreach (
            string what in (string[])
                ["page cache, 1 thread", "load, hash beside it", "second start, from the copy", "load peak"]
        )
            Assert.Contains(what, output, StringComparison.Ordinal);
        Assert.Empty(Directory.GetDirectories(cli.Folder, "headroom-*"));
    }
}
