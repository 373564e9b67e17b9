using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Training.Measure;

namespace Headroom.Cli.Commands;

/// <summary>headroom bench load: loading from files.</summary>
internal static class BenchLoadCommand
{
    public static Command Create()
    {
        var model = new Argument<string>("model")
        {
            Description =
                "A folder with 16- or 32-bit safetensors, or a config.json, of which a checkpoint with random values "
                    + "is made first. Example: headroom bench load models/llama-tiny",
        };
        var work = CommonOptions.With(
            "--work", Path.GetTempPath(),
            "Folder for what is written and removed again: the quantized copy, and the checkpoint made of a "
                + "config.json.");
        var rounds = CommonOptions.With("--rounds", 5, "Times that everything is done.");
        var device = CommonOptions.With("--device", "auto", "auto, cpu or cuda.");
        var json = CommonOptions.Json();
        var load = new Command(
            "load",
            "Time loading into NF4 from the page cache: reading, whole loads with and without the hash beside them, "
                + "the quantized copy and the second start."
        )
        {
            model, work, rounds, device, json,
        };
        load.SetAction(p =>
            Run(
                p.GetValue(model)!, p.GetValue(work)!, p.GetValue(rounds), p.GetValue(device)!, p.GetValue(json))
        );
        return load;
    }

    private static int Run(string path, string work, int rounds, string device, bool json)
    {
        using var session = new Session(json);
        path = session.Model(path);
        if (rounds < 1) throw new HeadroomException($"--rounds {rounds} cannot be run.", "Give at least one.");
        if (!Directory.Exists(work))
            throw new HeadroomException($"{work} is no folder.", "Give one with room for the checkpoint and its copy.");
        var config = path.EndsWith(".json", StringComparison.OrdinalIgnoreCase) ? BenchCommand.ReadConfig(path) : null;
        session.Open(device).Dispose(); // one that is not there is refused before gigabytes are written for it
        return BenchCommand.Run("Give a model of smaller matrices.", () =>
        {
            string? made = null;
            try
            {
                if (config != null)
                {
                    string folder = Temporary.Beside(Path.Combine(work, "headroom-bench"));
                    path = made = Directory.CreateDirectory(folder).FullName;
                    session.Say($"writing a checkpoint with random values to {made}");
                    SyntheticCheckpoint.Write(made, config, stop: session.Token);
                    // files that changed just now are not remembered by their hash
                    session.Token.WaitHandle.WaitOne(2500);
                }
                Print(
                    LoadBenchmark.Run(path, () => session.Open(device), work, rounds, session.Say, session.Token),
                    json);
            }
            finally
            {
                if (made != null) Directory.Delete(made, true);
            }
        });
    }

    private static void Print(LoadBenchmarkResult result, bool json)
    {
        if (!json)
        {
            foreach (string line in result.Lines()) Console.WriteLine(line);
            return;
        }
        Console.WriteLine(JsonSerializer.Serialize(new
        {
            device = result.Device,
            hash_cost = result.HashCost,
            weight_bytes = result.WeightBytes,
            staging_bytes = result.StagingBytes,
            planned_bytes = result.PlannedBytes,
            process_bytes = result.Memory?.Process,
            times = result.Times.Select(t => new
            {
                what = t.What,
                bytes = t.Bytes,
                median_s = t.Seconds,
                best_s = t.Best,
            }),
        }));
    }
}
