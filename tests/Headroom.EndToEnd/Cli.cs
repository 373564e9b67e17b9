using System.Diagnostics;

namespace Headroom.EndToEnd;

/// <summary>Runs the built command-line tool in a temporary folder.</summary>
internal sealed class Cli : IDisposable
{
    public string Folder { get; } = Directory.CreateTempSubdirectory("headroom-").FullName;

    /// <summary>Environment of the tool; the user's own caches and tokens are out of its reach.</summary>
    public Dictionary<string, string> Environment { get; } = [];

    public Cli()
    {
        Environment["HEADROOM_CACHE"] = Path.Combine(Folder, "cache");
        Environment["HF_HOME"] = Path.Combine(Folder, "hf");
        Environment["HF_ENDPOINT"] = "http://127.0.0.1:1"; // no test asks the real hub
    }

    public static string Base(string model) => Path.Combine(AppContext.BaseDirectory, "models", model);

    public Process Start(params string[] arguments) => Start(false, arguments);

    /// <summary>With <paramref name="input"/>, the caller writes to standard input.</summary>
    public Process Start(bool input, string[] arguments)
    {
        var info = new ProcessStartInfo("dotnet")
        {
            WorkingDirectory = Folder,
            RedirectStandardInput = input,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        info.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "headroom.dll"));
        foreach (string a in arguments) info.ArgumentList.Add(a);
        foreach (var (name, value) in Environment) info.Environment[name] = value;
        return Process.Start(info)!;
    }

    public (int Exit, string Out, string Error) Run(params string[] arguments)
    {
        using var p = Start(arguments);
        var error = p.StandardError.ReadToEndAsync();
        string text = p.StandardOutput.ReadToEnd();
        Assert.True(p.WaitForExit(300_000), "the tool hangs");
        return (p.ExitCode, text, error.Result);
    }

    /// <summary>Copies a tiny base, so that a test may spoil it.</summary>
    public string CopyBase(string model)
    {
        string to = Path.Combine(Folder, "base");
        Directory.CreateDirectory(to);
        foreach (string f in Directory.EnumerateFiles(Base(model)))
            File.Copy(f, Path.Combine(to, Path.GetFileName(f)), true);
        return to;
    }

    /// <summary>Writes a recipe of one tiny model over small files of rows.</summary>
    public string Recipe(string model, string extra = "", string? train = null, string? test = null)
    {
        string Rows(int n, string name) =>
            string.Concat(
                Enumerable
                    .Range(0, n)
                    .Select(i =>
                        $"{{\"text\": \"{name} {i}: {(i % 2 == 1 ? "a wonderful" : "an awful")} film by Marlow\", "
                            + $"\"label\": {i % 2}}}\n"
                    )
            );
        File.WriteAllText(Path.Combine(Folder, "train.jsonl"), train ?? Rows(64, "first"));
        File.WriteAllText(Path.Combine(Folder, "test.jsonl"), test ?? Rows(16, "second"));
        string path = Path.Combine(Folder, "recipe.yaml");
        File.WriteAllText(path, $"""
            name: tiny
            device: cpu
            models:
              - path: {model}
            data:
              train: train.jsonl
              test: test.jsonl
            task:
              max_seq_length: 64
            training:
              per_device_train_batch_size: 4
              gradient_accumulation_steps: 2
              learning_rate: 1e-3
              num_train_epochs: 2
              save_steps: 2
              save_total_limit: 2
              seed: 3
            {extra}
            """);
        return path;
    }

    public void Dispose() => Directory.Delete(Folder, true);
}
