using System.CommandLine;
using System.Text.Json;
using Headroom.Cuda;
using Headroom.Reports;
using Headroom.Training.Data;

namespace Headroom.Cli.Commands;

/// <summary>headroom data: the embedded review set as files.</summary>
internal static class DataCommand
{
    public static Command Create()
    {
        var output = new Argument<string>("out")
        {
            Description =
                "Folder to write train.jsonl, validation.jsonl and test.jsonl to. Example: headroom data reviews "
                    + "reviews/ --seed 1",
        };
        var seed = CommonOptions.With("--seed", 1, "Seed");
        var overwrite = new Option<bool>("--overwrite") { Description = "Replace the three files of an earlier call." };
        var json = new Option<bool>("--json") { Description = "Print the result as JSON." };
        var reviews = new Command(
            "reviews", "Write the embedded review set: three tiers, splits that share no sentence template.")
        {
            output, seed, overwrite, json,
        };
        reviews.SetAction(p =>
        {
            string folder = p.GetValue(output)!;
            Reviews.Write(folder, p.GetValue(seed), p.GetValue(overwrite));
            if (p.GetValue(json))
                Console.WriteLine(
                    JsonSerializer.Serialize(
                        new
                        {
                            folder,
                            train = Reviews.TrainRows,
                            validation = Reviews.ValidationRows,
                            test = Reviews.TestRows,
                        }
                    )
                );
            else
                Console.WriteLine(
                    $"{folder}: {Reviews.TrainRows} training, {Reviews.ValidationRows} validation, {Reviews.TestRows} "
                        + $"test rows"
                );
            return 0;
        });
        return new Command("data", "Data sets that come with Headroom.") { reviews };
    }
}

/// <summary>headroom doctor: what of CUDA was found.</summary>
internal static class DoctorCommand
{
    public static Command Create()
    {
        var json = new Option<bool>("--json") { Description = "Machine-readable output." };
        var command = new Command(
            "doctor", "Say what of CUDA was found, and what to do about what was not. Example: headroom doctor")
        {
            json,
        };
        command.SetAction(p =>
        {
            var r = CudaDoctor.Try();
            if (p.GetValue(json)) Console.WriteLine(JsonSerializer.Serialize(new
            {
                items = r.Items
                .Select(i => new { what = i.What, found = i.Found }),
                problem = r.Problem,
                remedy = r.Remedy,
                used_bytes = r.UsedBytes,
                attention = FlashKernels.Rule
            }));
            else
            {
                foreach (var (what, found) in r.Items) Console.WriteLine($"{what,-24} {found}");
                Console.WriteLine($"{"attention on a GPU",-24} {FlashKernels.Rule}");
                Console.WriteLine(r.Problem == null ? "CUDA works." : $"CUDA does not work: {r.Problem}\n  {r.Remedy}");
                Console.WriteLine(
                    $"{"CPU",-24} {Environment.ProcessorCount} threads, "
                        + $"{(System.Runtime.Intrinsics.Vector512.IsHardwareAccelerated ? "512" : System.Runtime.Intrinsics.Vector256.IsHardwareAccelerated ? "256" : "128")}-bit vectors: works"
                );
            }
            return 0;
        });
        return command;
    }
}

/// <summary>headroom report: the report of a run or a duel, again.</summary>
internal static class ReportCommand
{
    public static Command Create()
    {
        var folder = new Argument<string>("folder")
        {
            Description = "A run's or a duel's folder. Example: headroom report runs/reviews",
        };
        var json = new Option<bool>("--json") { Description = "Print the paths as JSON." };
        var command = new Command("report", "Write report.html, report.md and results.json from events.jsonl.")
        {
            folder, json,
        };
        command.SetAction(p =>
        {
            var paths = Report.Write(p.GetValue(folder)!);
            Console.WriteLine(
                p.GetValue(json)
                    ? JsonSerializer.Serialize(
                        new
                        {
                            html = paths.Html,
                            markdown = paths.Markdown,
                            results = paths.Json,
                        }
                    )
                    : $"report: {paths.Html}"
            );
            return 0;
        });
        return command;
    }
}
