using System.CommandLine;
using System.Text.Json;
using Headroom.Cuda;
using Headroom.Reports;

namespace Headroom.Cli.Commands;

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
